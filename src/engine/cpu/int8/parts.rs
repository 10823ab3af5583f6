//! Parts of concatenations that are written where they belong, so that nothing is copied.

use super::layout::BLOCK;
use crate::plan::{PlanStep, TensorId, Work};
use crate::quantized_plan::{parts_in_place, Lowered};

/// Of each tensor: the concatenation whose memory its bytes lie in, and its first channel there.
pub type Places = Vec<Option<(TensorId, usize)>>;

/// The parts of those concatenations of bytes of which every part can be written in its place, so that nothing is copied.
pub fn places(lowered: &Lowered) -> Places {
    let Lowered { plan, forms, scales, .. } = lowered;
    let made_as_bytes = |t: TensorId| forms[t].made_as_bytes;
    let alike = |part, whole| made_as_bytes(part) && made_as_bytes(whole) && scales[part] == scales[whole];
    let mut places = parts_in_place(plan, |_| BLOCK, alike);
    for step in &plan.steps {
        if !is_in_place(&places, step) {
            places
                .iter_mut()
                .filter(|place| place.is_some_and(|(whole, _)| whole == step.output))
                .for_each(|p| *p = None);
        }
    }
    places
}

/// Whether `step` is a concatenation whose parts are all written where it would copy them.
pub fn is_in_place(places: &Places, step: &PlanStep) -> bool {
    let placed = |&(part, first): &(TensorId, usize)| places[part] == Some((step.output, first));
    matches!(&step.work, Work::Concat(parts) if parts.iter().all(placed))
}

/// Gives a concatenation and the parts that lie in it the border that any of them needs (left and right): their rows are the
/// same.
pub fn share_borders(places: &Places, border: &mut [(usize, usize)]) {
    let wider = |a: (usize, usize), b: (usize, usize)| (a.0.max(b.0), a.1.max(b.1));
    for (part, place) in places.iter().enumerate() {
        if let Some((whole, _)) = *place {
            border[whole] = wider(border[whole], border[part]);
        }
    }
    for (part, place) in places.iter().enumerate() {
        if let Some((whole, _)) = *place {
            border[part] = border[whole];
        }
    }
}
