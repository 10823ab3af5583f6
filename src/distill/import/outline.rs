//! Objects' outlines as a mask.

use image::GrayImage;

use crate::data::labels::{Object, Unit};
use crate::data::VOID;

/// The mask of an image: of each pixel the class of the smallest object whose outline holds its
/// centre, void where there is none. An object without outline is its box.
///
/// # Errors
/// A sentence about the first box that is none.
pub fn mask(objects: &[Object], size: (u32, u32)) -> Result<GrayImage, String> {
    let mut sorted: Vec<(f32, &Object)> =
        objects.iter().map(|object| Ok((object.bbox(size)?.area(), object))).collect::<Result<_, String>>()?;
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut mask = GrayImage::from_pixel(size.0, size.1, image::Luma([VOID]));
    for (_, object) in sorted {
        let class = object.class.map_or(VOID, |class| class as u8);
        let scale = match object.unit {
            Unit::Pixel => [1.0, 1.0],
            Unit::Fraction => [f64::from(size.0), f64::from(size.1)],
        };
        let [x0, y0, x1, y1] = object.corners;
        let whole = vec![vec![[x0, y0], [x1, y0], [x1, y1], [x0, y1]]];
        let outlines = if object.outlines.is_empty() { &whole } else { &object.outlines };
        for outline in outlines {
            let points: Vec<[f64; 2]> = outline.iter().map(|p| [p[0] * scale[0], p[1] * scale[1]]).collect();
            fill(&mut mask, &points, class);
        }
    }
    Ok(mask)
}

/// Fills a polygon row by row, by the even-odd rule at the pixels' centres.
fn fill(mask: &mut GrayImage, points: &[[f64; 2]], class: u8) {
    let (width, height) = mask.dimensions();
    let rows = points.iter().map(|p| p[1]);
    let (low, high) = rows.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)));
    let first = (low - 0.5).ceil().max(0.0) as u32;
    let mut crossings = Vec::new();
    for y in first..height {
        let centre = f64::from(y) + 0.5;
        if centre > high {
            break;
        }
        crossings.clear();
        for (i, a) in points.iter().enumerate() {
            let b = points[(i + 1) % points.len()];
            if (a[1] <= centre) != (b[1] <= centre) {
                crossings.push(a[0] + (centre - a[1]) / (b[1] - a[1]) * (b[0] - a[0]));
            }
        }
        crossings.sort_by(f64::total_cmp);
        for pair in crossings.chunks_exact(2) {
            let from = (pair[0] - 0.5).ceil().clamp(0.0, f64::from(width)) as u32;
            let to = (pair[1] - 0.5).ceil().clamp(0.0, f64::from(width)) as u32;
            (from..to).for_each(|x| mask.put_pixel(x, y, image::Luma([class])));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pixel_has_the_class_of_the_smallest_object_that_holds_its_centre() {
        let triangle = vec![[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]];
        let mut large = Object::around(Some(1), &triangle, Unit::Pixel).unwrap();
        large.outlines.push(triangle);
        let small = Object::new(Some(2), [0.0, 0.0, 0.25, 0.5], Unit::Fraction);
        let mask = mask(&[small, large], (4, 4)).unwrap();
        let v = VOID;
        assert_eq!(mask.as_raw()[..], [2, 1, 1, v, 2, 1, v, v, 1, v, v, v, v, v, v, v]);
    }
}
