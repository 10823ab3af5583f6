//! An HTML page that needs no other file, legible in a light and in a dark browser.

use std::path::Path;

use image::RgbImage;
use maud::{html, Markup, PreEscaped, DOCTYPE};
use peregrine_core::files::write_atomically;

use crate::chart::Svg;
use crate::colour::css;
use crate::{picture, Colour, ReportError};

const STYLE: &str = "\
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1060px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.2em; margin-top: 2em; } h3 { font-size: 1em; }
.badge { color: #fff; border-radius: 4px; padding: .1em .5em; }
table { border-collapse: collapse; } tr { border-bottom: 1px solid #8884; }
td, th { padding: .15em .8em; text-align: left; } .number { text-align: right; }
.pictures { display: flex; flex-wrap: wrap; gap: 12px; } .pictures figure { max-width: 320px; }
figure { margin: 1em 0; } figcaption { font-size: 12px; overflow-wrap: anywhere; }
img { max-width: 100%; display: block; }
svg { width: 100%; height: auto; } svg text { fill: currentColor; }
pre { overflow-x: auto; font-size: 13px; }";

/// A page in the making. Text is escaped.
#[derive(Debug, Clone)]
pub struct Page {
    title: String,
    body: Vec<Markup>,
}

impl Page {
    /// An empty page under its title.
    pub fn new(title: &str) -> Self {
        Self { title: title.into(), body: Vec::new() }
    }

    /// The heading of a section.
    pub fn section(&mut self, title: &str) {
        self.body.push(html! { h2 { (title) } });
    }

    /// The heading of a part of a section.
    pub fn subsection(&mut self, title: &str) {
        self.body.push(html! { h3 { (title) } });
    }

    /// A paragraph.
    pub fn paragraph(&mut self, text: &str) {
        self.body.push(html! { p { (text) } });
    }

    /// A word or two in white on `colour`, such as a verdict.
    pub fn badge(&mut self, text: &str, colour: Colour) {
        let style = format!("background:{}", css(colour));
        self.body.push(html! { p { strong.badge style=(style) { (text) } } });
    }

    /// A list with a bullet before each item.
    pub fn list<S: AsRef<str>>(&mut self, items: &[S]) {
        self.body.push(html! { ul { @for item in items { li { (item.as_ref()) } } } });
    }

    /// Text in which columns line up.
    pub fn preformatted(&mut self, text: &str) {
        self.body.push(html! { pre { (text) } });
    }

    /// A table whose first row is its header. Columns of numbers are aligned at the right.
    pub fn table(&mut self, rows: &[Vec<String>]) {
        let Some((header, rows)) = rows.split_first() else { return };
        let numeric = |column: usize| {
            let mut cells = rows.iter().filter_map(|row| row.get(column));
            cells.all(|cell| is_number(cell)).then_some("number")
        };
        let classes: Vec<_> = (0..header.len()).map(numeric).collect();
        let class = |column: usize| classes.get(column).copied().flatten();
        self.body.push(html! {
            table {
                tr { @for (i, cell) in header.iter().enumerate() { th class=[class(i)] { (cell) } } }
                @for row in rows {
                    tr { @for (i, cell) in row.iter().enumerate() { td class=[class(i)] { (cell) } } }
                }
            }
        });
    }

    /// A chart over the width of the page, with a caption if it is not empty.
    pub fn figure(&mut self, chart: &Svg, caption: &str) {
        // The namespace is for SVG files; without it the page holds no address at all.
        let svg = chart.as_str().replace(" xmlns=\"http://www.w3.org/2000/svg\"", "");
        let style = format!("max-width:{}px", chart.width() / 2);
        self.body.push(html! {
            figure style=(style) {
                (PreEscaped(svg))
                @if !caption.is_empty() { figcaption { (caption) } }
            }
        });
    }

    /// Pictures side by side, each with its caption.
    ///
    /// # Errors
    /// When a picture has more than 65535 pixels a side, which no JPEG can hold.
    pub fn pictures(&mut self, pictures: &[(RgbImage, String)]) -> Result<(), ReportError> {
        let mut figures = Vec::new();
        for (image, caption) in pictures {
            let fails = |source| ReportError::Picture { caption: caption.clone(), source };
            figures.push((picture::data_uri(image).map_err(fails)?, caption));
        }
        self.body.push(html! {
            div.pictures {
                @for (uri, caption) in &figures {
                    figure { img src=(uri) alt=""; figcaption { (caption) } }
                }
            }
        });
        Ok(())
    }

    /// The whole page.
    pub fn html(&self) -> String {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { (self.title) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    h1 { (self.title) }
                    @for part in &self.body { (part) "\n" }
                }
            }
        };
        page.into_string() + "\n"
    }

    /// Writes the page to `path`, whole or not at all.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn write(&self, path: &Path) -> Result<(), ReportError> {
        Ok(write_atomically(path, self.html().as_bytes())?)
    }
}

/// Whether a cell holds a number, or says that there is none.
fn is_number(cell: &str) -> bool {
    cell.starts_with(|first: char| first.is_ascii_digit() || "+-−–".contains(first)) || matches!(cell, "" | "none")
}
