//! The class of the scene: the probabilities of the student's scene head smoothed over time, their
//! messages, and what the diagnostics tell of them.
//!
//! Not to be confused with [`scene`](super::scene), which places objects on the ground.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use peregrine_student::SceneHead;
use r2r::vision_msgs::msg::{Classification, ObjectHypothesis};
use r2r::{NativeMsg, WrappedTypesupport};

use super::clock::Nanoseconds;
use super::messages::{set_header, NativeHeader};

type NativeHypothesis = <ObjectHypothesis as WrappedTypesupport>::CStruct;

/// Groups that the diagnostics tell of; a student has no more.
const GROUPS: usize = 16;

/// An exponential moving average of a camera's probabilities: with the time constant τ, an image Δt
/// after the one before counts by 1 − e^(−Δt/τ).
#[derive(Debug, Default)]
pub struct SceneSmoother {
    probabilities: Vec<f32>,
    /// Of the last image.
    stamp: Nanoseconds,
}

impl SceneSmoother {
    /// With room for so many classes.
    pub fn with_room(classes: usize) -> Self {
        Self { probabilities: Vec::with_capacity(classes), stamp: 0 }
    }

    /// The average with the probabilities `now` of an image of `stamp`, whose `groups` have so many
    /// classes. It begins anew with other groups, and when time jumps back. A group without
    /// probabilities, whose logits were not finite, stays as it was. Allocates only for more classes
    /// than ever before.
    pub fn add(
        &mut self,
        now: &[f32],
        groups: impl Iterator<Item = usize>,
        stamp: Nanoseconds,
        time_constant: Nanoseconds,
    ) -> &[f32] {
        let elapsed = stamp.saturating_sub(self.stamp);
        self.stamp = stamp;
        if self.probabilities.len() != now.len() || elapsed < 0 {
            self.probabilities.clear();
            self.probabilities.extend_from_slice(now);
            return &self.probabilities;
        }
        let weight = if time_constant > 0 { 1.0 - (-(elapsed as f64) / time_constant as f64).exp() } else { 1.0 };
        let mut first = 0;
        for classes in groups {
            let group = first..(first + classes).min(now.len());
            first = group.end;
            let (average, now) = (&mut self.probabilities[group.clone()], &now[group]);
            let is_known = |values: &[f32]| values.iter().any(|&p| p > 0.0);
            if !is_known(average) {
                average.copy_from_slice(now);
            } else if is_known(now) {
                average.iter_mut().zip(now).for_each(|(a, n)| *a += weight as f32 * (n - *a));
            }
        }
        &self.probabilities
    }
}

/// A `vision_msgs/Classification` for each group, with all its classes, the most probable first.
pub struct SceneMessages {
    groups: Vec<GroupMessage>,
}

struct GroupMessage {
    native: NativeMsg<Classification>,
    /// The class in each place of the message.
    order: Vec<usize>,
}

// SAFETY: as for `DetectionsMessage`.
unsafe impl Send for SceneMessages {}

impl SceneMessages {
    /// For a student's head; none without one.
    pub fn new(head: Option<&SceneHead>) -> Self {
        let message = |(_, classes): (&str, &[String])| {
            let result = |class: &String| ObjectHypothesis { class_id: class.clone(), score: 0.0 };
            let results = classes.iter().map(result).collect();
            let native = NativeMsg::from(&Classification { results, ..Classification::default() });
            GroupMessage { native, order: (0..classes.len()).collect() }
        };
        Self { groups: head.into_iter().flat_map(SceneHead::groups).map(message).collect() }
    }

    /// Number of classes of all groups.
    pub fn classes(&self) -> usize {
        self.sizes().sum()
    }

    /// Number of classes of each group.
    pub fn sizes(&self) -> impl Iterator<Item = usize> + '_ {
        self.groups.iter().map(|group| group.order.len())
    }

    /// Fills the messages with the `probabilities` of all classes, group by group, and passes those to
    /// `publish` whose probabilities are known.
    pub fn publish(
        &mut self,
        header: &NativeHeader,
        probabilities: &[f32],
        mut publish: impl FnMut(&mut NativeMsg<Classification>),
    ) {
        let mut rest = probabilities;
        for group in &mut self.groups {
            let (own, others) = rest.split_at(group.order.len().min(rest.len()));
            rest = others;
            if own.len() == group.order.len() && own.iter().any(|&p| p > 0.0) {
                group.fill(header, own);
                publish(&mut group.native);
            }
        }
    }
}

impl GroupMessage {
    fn fill(&mut self, header: &NativeHeader, probabilities: &[f32]) {
        set_header(&mut self.native.header, header);
        let count = self.native.results.size.min(self.order.len());
        if count == 0 {
            return;
        }
        // SAFETY: `new` made `size` results there, and nothing changes their number.
        let slots: &mut [NativeHypothesis] = unsafe { std::slice::from_raw_parts_mut(self.native.results.data, count) };
        // Insertion sort: few classes, whose order hardly changes from image to image.
        for at in 1..count {
            let mut at = at;
            while at > 0 && probabilities[self.order[at]] > probabilities[self.order[at - 1]] {
                self.order.swap(at, at - 1);
                // The strings' pointers change places, not their bytes.
                slots.swap(at, at - 1);
                at -= 1;
            }
        }
        slots.iter_mut().zip(&self.order).for_each(|(slot, &class)| slot.score = f64::from(probabilities[class]));
    }
}

/// The most probable class of each group, for the diagnostics: written by the frame thread.
#[derive(Debug, Default)]
pub struct SharedScene([AtomicU32; GROUPS]);

impl SharedScene {
    /// Stores the best of `probabilities`, whose groups have `sizes`.
    pub fn store(&self, probabilities: &[f32], sizes: impl Iterator<Item = usize>) {
        let mut rest = probabilities;
        for (cell, size) in self.0.iter().zip(sizes) {
            let (own, others) = rest.split_at(size.min(rest.len()));
            rest = others;
            let best = own.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).filter(|best| best.1 > 0.0);
            let packed = best.map_or(0, |(class, p)| ((class as u32 + 1) << 16) | (p * 65_535.0) as u32);
            cell.store(packed, Relaxed);
        }
    }

    /// As key and value for each group of `classes`, such as `scene.light` and `night (0.97)`.
    pub fn values<'a>(&'a self, groups: &'a [(String, Vec<String>)]) -> impl Iterator<Item = (String, String)> + 'a {
        groups.iter().zip(&self.0).map(|((group, classes), cell)| {
            let packed = cell.load(Relaxed);
            let class = (packed >> 16).checked_sub(1).and_then(|class| classes.get(class as usize));
            let value = class.map(|class| format!("{class} ({:.2})", f64::from(packed & 0xFFFF) / 65_535.0));
            let key =
                if group == peregrine_student::scene::ONLY_GROUP { group.clone() } else { format!("scene.{group}") };
            (key, value.unwrap_or_else(|| "unknown".into()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanoseconds = 1_000_000_000;

    fn head() -> SceneHead {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        SceneHead(
            [("light".into(), names(&["day", "night"])), ("weather".into(), names(&["dry", "rain", "snow"]))].into(),
        )
    }

    fn near(found: &[f32], expected: &[f32]) -> bool {
        found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5)
    }

    #[test]
    fn a_change_comes_through_with_the_time_constant() {
        let mut smoother = SceneSmoother::with_room(2);
        let mut add = |now: [f32; 2], stamp| smoother.add(&now, [2].into_iter(), stamp, SECOND).to_vec();
        assert_eq!(add([1.0, 0.0], 10 * SECOND), [1.0, 0.0], "the first counts in full");
        // After one time constant 1 − 1/e of a step, in whatever number of images it came.
        let share = 1.0 - (-1.0f32).exp();
        let mut last = vec![];
        for i in 1..=20 {
            last = add([0.0, 1.0], 10 * SECOND + i * SECOND / 20);
        }
        assert!(near(&last, &[1.0 - share, share]), "{last:?}");
        assert_eq!(add([1.0, 0.0], 0), [1.0, 0.0], "a loop of a bag begins anew");
    }

    #[test]
    fn without_time_constant_each_image_counts_alone_and_unknown_groups_stay() {
        let mut smoother = SceneSmoother::default();
        let mut add = |now: [f32; 5], time| smoother.add(&now, [2, 3].into_iter(), 0, time).to_vec();
        add([0.9, 0.1, 0.2, 0.3, 0.5], 0);
        assert_eq!(add([0.3, 0.7, 0.0, 0.0, 0.0], 0), [0.3, 0.7, 0.2, 0.3, 0.5]);
        assert_eq!(add([0.9, 0.1, 0.2, 0.3, 0.5], SECOND)[..2], [0.3, 0.7], "no time has passed");
    }

    #[test]
    fn each_group_is_a_message_with_the_best_class_first() {
        let mut messages = SceneMessages::new(Some(&head()));
        let header = NativeMsg::from(&r2r::std_msgs::msg::Header { frame_id: "front".into(), ..Default::default() });
        let mut sent = |probabilities: &[f32]| {
            let mut sent = Vec::new();
            messages.publish(&header, probabilities, |native| {
                let message = Classification::from_native(native);
                assert_eq!(message.header.frame_id, "front");
                let results: Vec<_> = message.results.into_iter().map(|r| (r.class_id, r.score as f32)).collect();
                sent.push(results);
            });
            sent
        };
        let of = |pairs: &[(&str, f32)]| pairs.iter().map(|(name, p)| ((*name).to_owned(), *p)).collect::<Vec<_>>();
        assert_eq!(
            sent(&[0.25, 0.75, 0.2, 0.3, 0.5]),
            [of(&[("night", 0.75), ("day", 0.25)]), of(&[("snow", 0.5), ("rain", 0.3), ("dry", 0.2)])]
        );
        assert_eq!(sent(&[0.75, 0.25, 0.0, 0.0, 0.0]), [of(&[("day", 0.75), ("night", 0.25)])]);
        assert_eq!((messages.classes(), SceneMessages::new(None).classes()), (5, 0));
    }

    #[test]
    fn diagnostics_name_the_best_class_of_each_group() {
        let groups: Vec<_> = head().0.into_iter().collect();
        let shared = SharedScene::default();
        let values = || shared.values(&groups).map(|(key, value)| format!("{key}: {value}")).collect::<Vec<_>>();
        assert_eq!(values(), ["scene.light: unknown", "scene.weather: unknown"]);
        shared.store(&[0.03, 0.97, 0.2, 0.3, 0.5], [2, 3].into_iter());
        assert_eq!(values(), ["scene.light: night (0.97)", "scene.weather: snow (0.50)"]);
    }
}
