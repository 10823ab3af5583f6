//! Web pages with pictures in them, that need nothing beside them.

use std::fmt::{Display, Write};

use base64::prelude::{Engine, BASE64_STANDARD};
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::{ExtendedColorType, Rgb, RgbImage};
use peregrine_core::BoundingBox;

/// Colours that those with colour-blindness tell apart too (Okabe & Ito 2008).
pub const GREEN: Rgb<u8> = Rgb([0, 158, 115]);
pub const ORANGE: Rgb<u8> = Rgb([230, 159, 0]);
pub const RED: Rgb<u8> = Rgb([213, 94, 0]);

const JPEG_QUALITY: u8 = 80;

const STYLE: &str = "\
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1060px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.2em; margin-top: 2em; } h3 { font-size: 1em; }
table { border-collapse: collapse; } td, th { padding: .15em .8em; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr { border-bottom: 1px solid #8884; }
.pictures { display: flex; flex-wrap: wrap; gap: 12px; }
figure { margin: 0; } figcaption { font-size: 12px; max-width: 320px; overflow-wrap: anywhere; }
img { max-width: 320px; display: block; }
svg { height: auto; } svg text { font-size: 11px; fill: currentColor; }";

/// A page in the making.
pub struct Page {
    html: String,
}

impl Page {
    pub fn new(title: &str) -> Self {
        let title = escape(title);
        Self {
            html: format!(
                "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
                 content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>\n{STYLE}\n</style>\n\
                 </head>\n<body>\n<h1>{title}</h1>\n"
            ),
        }
    }

    /// `level`: 2 or 3.
    pub fn heading(&mut self, level: u8, text: &str) {
        self.push(format_args!("<h{level}>{}</h{level}>\n", escape(text)));
    }

    pub fn paragraph(&mut self, text: &str) {
        self.push(format_args!("<p>{}</p>\n", escape(text)));
    }

    /// Text in which columns line up.
    pub fn preformatted(&mut self, text: &str) {
        self.push(format_args!("<pre>{}</pre>\n", escape(text)));
    }

    /// The first row is the header.
    pub fn table(&mut self, rows: &[Vec<String>]) {
        self.push("<table>\n");
        for (i, row) in rows.iter().enumerate() {
            let tag = if i == 0 { "th" } else { "td" };
            let cells: String = row.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect();
            self.push(format_args!("<tr>{cells}</tr>\n"));
        }
        self.push("</table>\n");
    }

    /// Pictures side by side, each with its caption.
    pub fn pictures(&mut self, pictures: &[(RgbImage, String)]) {
        self.push("<div class=\"pictures\">\n");
        for (image, caption) in pictures {
            let (url, caption) = (data_url(image), escape(caption));
            self.push(format_args!(
                "<figure><img src=\"{url}\" alt=\"\"><figcaption>{caption}</figcaption></figure>\n"
            ));
        }
        self.push("</div>\n");
    }

    /// Markup as it is.
    pub fn raw(&mut self, html: &str) {
        self.push(html);
    }

    /// The whole page.
    pub fn finish(mut self) -> String {
        self.push("</body>\n</html>\n");
        self.html
    }

    fn push(&mut self, what: impl Display) {
        // Writing to a string cannot fail.
        let _ = write!(self.html, "{what}");
    }
}

/// A table of counts as squares, darker for more: rows of equal length, 0 to 1 each.
pub fn heat_map(rows: &[Vec<f64>], title: &str) -> String {
    const CELL: usize = 9;
    let (width, height) = (rows.first().map_or(0, Vec::len) * CELL, rows.len() * CELL);
    let mut svg = format!(
        "<figure><svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\">\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#0072b2\" fill-opacity=\"0.05\"/>"
    );
    for (y, row) in rows.iter().enumerate() {
        for (x, value) in row.iter().enumerate().filter(|(_, v)| **v > 0.0) {
            let _ = write!(
                svg,
                "<rect x=\"{}\" y=\"{}\" width=\"{CELL}\" height=\"{CELL}\" fill=\"#0072b2\" fill-opacity=\"{value:.2}\"/>",
                x * CELL,
                y * CELL
            );
        }
    }
    svg + &format!("</svg><figcaption>{}</figcaption></figure>\n", escape(title))
}

/// Shrinks to at most `side` pixels either way; what is smaller stays.
pub fn shrink(image: &RgbImage, side: u32) -> RgbImage {
    let scale = f64::from(side) / f64::from(image.width().max(image.height()));
    if scale >= 1.0 {
        return image.clone();
    }
    let to = |size: u32| ((f64::from(size) * scale).round() as u32).max(1);
    imageops::resize(image, to(image.width()), to(image.height()), FilterType::Triangle)
}

/// Draws a box's outline of `thickness` pixels, as far as it lies in the image.
pub fn draw_box(image: &mut RgbImage, bbox: &BoundingBox, colour: Rgb<u8>, thickness: u32) {
    let (width, height) = image.dimensions();
    let at = |v: f32, limit: u32| (v.max(0.0) as u32).min(limit.saturating_sub(1));
    let (left, right) = (at(bbox.x_min, width), at(bbox.x_max, width));
    let (top, bottom) = (at(bbox.y_min, height), at(bbox.y_max, height));
    for y in top..=bottom {
        for x in left..=right {
            let inside = [x - left, right - x, y - top, bottom - y].into_iter().min().unwrap_or(0);
            if inside < thickness {
                image.put_pixel(x, y, colour);
            }
        }
    }
}

fn data_url(image: &RgbImage) -> String {
    let mut jpeg = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY);
    let encoded = image::ImageEncoder::write_image(
        encoder,
        image.as_raw(),
        image.width(),
        image.height(),
        ExtendedColorType::Rgb8,
    );
    // Only an image of more than 65535 pixels a side cannot be a JPEG, and pictures here are shrunk.
    encoded.map_or_else(|_| String::new(), |()| format!("data:image/jpeg;base64,{}", BASE64_STANDARD.encode(jpeg)))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_drawn_as_an_outline_within_the_image() {
        let mut image = RgbImage::new(10, 10);
        draw_box(&mut image, &BoundingBox::new(2.0, 2.0, 50.0, 7.0), RED, 1);
        assert_eq!(image.get_pixel(2, 5), &RED);
        assert_eq!(image.get_pixel(9, 5), &RED);
        assert_eq!(image.get_pixel(5, 5), &Rgb([0; 3]));
    }

    #[test]
    fn text_cannot_become_markup() {
        let mut page = Page::new("<script>");
        page.table(&[vec!["a & b".into()]]);
        let html = page.finish();
        assert!(html.contains("&lt;script&gt;") && html.contains("a &amp; b"));
    }
}
