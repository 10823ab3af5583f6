//! Places buffers of known size and life in one arena, so that those never alive together share
//! memory.

/// A buffer: its size, and the first and last moment (inclusive) at which it holds something
/// needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    pub size: usize,
    pub first: usize,
    pub last: usize,
}

impl Lifetime {
    fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Returns each buffer's offset and the arena's size.
///
/// Largest first, each at the lowest offset that is free throughout its life (Pisarchyk & Lee 2020,
/// "Greedy by size").
pub fn place(buffers: &[Lifetime]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(buffers[i].size));
    let mut offsets = vec![0; buffers.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(buffers.len());
    let mut total = 0;
    for &i in &order {
        placed.sort_by_key(|&j| offsets[j]);
        let mut at = 0;
        for &j in placed.iter().filter(|&&j| buffers[j].overlaps(&buffers[i])) {
            if at + buffers[i].size <= offsets[j] {
                break;
            }
            at = at.max(offsets[j] + buffers[j].size);
        }
        offsets[i] = at;
        total = total.max(at + buffers[i].size);
        placed.push(i);
    }
    (offsets, total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_chain_needs_room_for_its_two_largest_neighbours() {
        let buffers: Vec<_> =
            [4, 8, 2, 6].iter().enumerate().map(|(i, &size)| Lifetime { size, first: i, last: i + 1 }).collect();
        assert_eq!(place(&buffers).1, 12);
    }

    proptest! {
        #[test]
        fn no_two_buffers_alive_together_overlap(spec in prop::collection::vec((1usize..100, 0usize..20, 0usize..8), 1..40)) {
            let buffers: Vec<_> =
                spec.iter().map(|&(size, first, life)| Lifetime { size, first, last: first + life }).collect();
            let (offsets, total) = place(&buffers);
            for (i, a) in buffers.iter().enumerate() {
                prop_assert!(offsets[i] + a.size <= total);
                for (j, b) in buffers.iter().enumerate().skip(i + 1) {
                    let apart = offsets[i] + a.size <= offsets[j] || offsets[j] + b.size <= offsets[i];
                    prop_assert!(!a.overlaps(b) || apart, "{i} and {j}");
                }
            }
        }
    }
}
