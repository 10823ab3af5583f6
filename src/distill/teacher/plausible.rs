//! Whether a description fits the values of a detector's outputs, where their shapes say nothing:
//! scores that are no probabilities, boxes in another unit or order. What cannot fit is refused with
//! the key that mends it.

use anyhow::{bail, ensure};

use super::description::{BoxFormat, BoxUnit, Family, Scores, TeacherDescription};

/// Rounding of half precision.
const TOLERANCE: f32 = 0.01;
/// Of fewer candidates, nothing is concluded from what they have in common.
const MANY: usize = 50;
/// A box does not reach farther beyond the input than this fraction of it.
const BEYOND: f32 = 0.02;
/// Boxes in pixels with no number above this are fractions.
const FRACTION: f32 = 2.0;
/// Boxes in fractions with a number above this are pixels.
const PIXELS: f32 = 16.0;

/// Checks the scores of one output, all classes of all candidates, before they become
/// probabilities.
///
/// # Errors
/// When they cannot be what `scores` of the description says.
pub fn scores(d: &TeacherDescription, output: &str, values: impl Iterator<Item = f32>) -> anyhow::Result<()> {
    let (mut low, mut high, mut count) = (f32::INFINITY, f32::NEG_INFINITY, 0);
    for value in values {
        ensure!(
            value.is_finite(),
            "output {output:?} holds {value} as a score; check mean and std, or export the network in float32"
        );
        (low, high, count) = (low.min(value), high.max(value), count + 1);
    }
    let probable = low >= -TOLERANCE && high <= 1.0 + TOLERANCE;
    match d.scores() {
        Scores::Probability => ensure!(
            count == 0 || probable,
            "output {output:?} holds scores from {low} to {high}, which are not probabilities; if they are logits, write \
             scores = \"sigmoid\"; else correct family and outputs"
        ),
        Scores::Sigmoid | Scores::Softmax => ensure!(
            // Logits of which none is negative would be objects everywhere.
            count < MANY || !(low >= 0.0 && probable && high > 0.0),
            "output {output:?} holds scores from {low} to {high}, which are probabilities already; write scores = \
             \"probability\""
        ),
    }
    Ok(())
}

/// Checks the boxes of one output, in the numbers that the network gives.
///
/// # Errors
/// When they cannot be what `box_format` and `box_unit` of the description say.
pub fn boxes(d: &TeacherDescription, output: &str, values: impl Iterator<Item = [f32; 4]>) -> anyhow::Result<()> {
    let size = match d.box_unit() {
        BoxUnit::Fractions => [1.0, 1.0],
        BoxUnit::Pixels => [d.size.width as f32, d.size.height as f32],
    };
    let seen = Boxes::of(values, size);
    ensure!(
        seen.finite,
        "output {output:?} holds a box that is not a number; check mean and std, or export the network in float32"
    );
    if seen.count == 0 {
        return Ok(());
    }
    let largest = seen.largest;
    match d.box_unit() {
        BoxUnit::Pixels => ensure!(
            largest > FRACTION,
            "output {output:?} holds boxes up to {largest}, which are not pixels; write box_unit = \"fractions\""
        ),
        BoxUnit::Fractions => ensure!(
            largest <= PIXELS,
            "output {output:?} holds boxes up to {largest}, which are not fractions of the input; write box_unit = \
             \"pixels\""
        ),
    }
    match d.box_format() {
        BoxFormat::Cxcywh => {
            // Small objects at the right or below have a centre beyond their width: if no
            // candidate has, the numbers are corners. A few candidates must also leave the input.
            let few = d.box_format.is_none() && seen.beyond > 0;
            let corners = seen.ordered == seen.count && (seen.count >= MANY || few);
            if corners {
                let family = if d.family == Family::Yolo { " (or, with 6 values each, family = \"end_to_end\")" } else { "" };
                bail!(
                    "output {output:?} holds boxes that are corners, not centre and size; write box_format = \
                     \"xyxy\"{family}"
                );
            }
        }
        BoxFormat::Xyxy => ensure!(
            seen.inverted * 10 <= seen.count,
            "output {output:?} holds boxes whose right or lower edge comes first ({} of {}), so they are not corners; write \
             box_format = \"cxcywh\"",
            seen.inverted,
            seen.count
        ),
    }
    Ok(())
}

/// What the boxes of one output have in common. Boxes of zeros are padding, and left out.
#[derive(Debug, Default)]
struct Boxes {
    count: usize,
    finite: bool,
    /// The largest absolute number.
    largest: f32,
    /// Those whose last two numbers exceed the first two.
    ordered: usize,
    /// Those of which one of the last two is below the first two.
    inverted: usize,
    /// Those that, read as centre and size, leave the input.
    beyond: usize,
}

impl Boxes {
    fn of(values: impl Iterator<Item = [f32; 4]>, [width, height]: [f32; 2]) -> Self {
        let mut seen = Self { finite: true, ..Self::default() };
        for [a, b, c, d] in values.filter(|b| b.iter().any(|&v| v != 0.0)) {
            seen.count += 1;
            seen.finite &= [a, b, c, d].iter().all(|v| v.is_finite());
            seen.largest = [a, b, c, d].iter().fold(seen.largest, |largest, v| largest.max(v.abs()));
            seen.ordered += usize::from(c > a && d > b);
            seen.inverted += usize::from(c < a || d < b);
            let out = |centre: f32, side: f32, limit: f32| {
                let over = (side / 2.0 - centre).max(centre + side / 2.0 - limit);
                over > BEYOND * limit
            };
            seen.beyond += usize::from(out(a, c, width) || out(b, d, height));
        }
        seen
    }
}
