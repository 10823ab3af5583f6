//! A contact sheet of the selection: its frames with the teachers' boxes and the reason of each.

use peregrine_report::colour::GREEN;
use peregrine_report::picture::{draw_box, shrink};
use peregrine_report::{Page, ReportError};

use super::output::Selection;
use crate::data::load_image;

/// Side of a picture in pixels.
const PICTURE: u32 = 320;
/// Most pictures on the page.
const SHOWN: usize = 300;

/// The page; boxes from the score `label_score` on are drawn.
///
/// # Errors
/// When a picture cannot be encoded.
pub fn page(selection: &Selection, label_score: f32) -> Result<Page, ReportError> {
    let count = selection.selected.len();
    let mut page = Page::new(&format!("{count} of {} frames", selection.frames));
    page.paragraph(&format!(
        "Selected by {} with seed {}; {} near-copies passed over, {} files left out. The most valuable first; boxes are \
         the teachers'.",
        selection.strategy,
        selection.seed,
        selection.near_copies.len(),
        selection.skipped.len()
    ));
    if count > SHOWN {
        page.paragraph(&format!("The first {SHOWN} are shown; selected.json has all."));
    }
    let picture = |(place, frame): (usize, &super::output::Selected)| {
        let mut image = load_image(&frame.path).ok()?;
        let thickness = (image.width().max(image.height()) / (PICTURE / 2)).max(1);
        let labels = frame.objects.iter().filter(|object| object.score >= label_score);
        labels.for_each(|object| draw_box(&mut image, &object.bbox, GREEN, thickness));
        Some((shrink(&image, PICTURE), format!("{}. {}: {}", place + 1, frame.file, frame.reason)))
    };
    let pictures: Vec<_> = selection.selected.iter().take(SHOWN).enumerate().filter_map(picture).collect();
    page.pictures(&pictures)?;
    Ok(page)
}
