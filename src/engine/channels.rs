//! Which channels of a graph's tensors are one and the same, so that they stay or go together.
//!
//! A dense convolution makes new channels; a depthwise one, a pooling, an activation and an
//! upsampling pass theirs on; a sum and a scaling tie those of their two operands together, place by
//! place; a concatenation lines them up; a shuffle ties those that share a place in its groups, so
//! that it stays one. What the input and the outputs hold is fixed.

use super::{Graph, LayerId, Op};

/// Index of a channel that may lie in several layers.
pub type ChannelId = usize;

/// The channels of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channels {
    /// For each layer the id of each of its channels.
    pub of: Vec<Vec<ChannelId>>,
    /// For each id, whether it reaches the input or an output, and so must stay.
    pub fixed: Vec<bool>,
}

impl Channels {
    /// Follows the channels through `graph`.
    pub fn of(graph: &Graph) -> Self {
        let mut ties = Ties::default();
        let mut of: Vec<Vec<usize>> = Vec::with_capacity(graph.layers.len());
        for layer in &graph.layers {
            let from = |i: usize| &of[layer.inputs[i]];
            let ids = match layer.op {
                Op::Conv(conv) if conv.depthwise => from(0).clone(),
                Op::Input | Op::Conv(_) => (0..layer.shape.channels).map(|_| ties.new_id()).collect(),
                Op::Upsample2x(_) | Op::MaxPool(_) | Op::AveragePool(_) | Op::GlobalAverage | Op::Activate(_) => {
                    from(0).clone()
                }
                Op::Slice { first } => from(0)[first..first + layer.shape.channels].to_vec(),
                Op::Shuffle { groups } => {
                    let each = layer.shape.channels / groups;
                    for (c, &id) in from(0).iter().enumerate().skip(each) {
                        ties.tie(from(0)[c % each], id);
                    }
                    (0..layer.shape.channels).map(|c| from(0)[c % groups * each + c / groups]).collect()
                }
                Op::Concat => layer.inputs.iter().flat_map(|&i| of[i].iter().copied()).collect(),
                Op::Add | Op::Scale => {
                    from(0).iter().zip(from(1)).for_each(|(&a, &b)| ties.tie(a, b));
                    from(0).clone()
                }
            };
            of.push(ids);
        }
        let mut fixed = vec![false; ties.parent.len()];
        let mut dense = vec![usize::MAX; ties.parent.len()];
        let mut count = 0;
        for id in of.iter_mut().flatten() {
            let root = ties.root(*id);
            if dense[root] == usize::MAX {
                dense[root] = count;
                count += 1;
            }
            *id = dense[root];
        }
        // What is sliced or shuffled stays whole: its places are counted.
        let counted = graph.layers.iter().filter(|layer| matches!(layer.op, Op::Slice { .. } | Op::Shuffle { .. }));
        let counted: Vec<LayerId> = counted.map(|layer| layer.inputs[0]).collect();
        for layer in graph.outputs.iter().chain(&counted).chain([&0]) {
            of[*layer].iter().for_each(|&id| fixed[id] = true);
        }
        fixed.truncate(count);
        Self { of, fixed }
    }

    /// `graph` with only the channels to `keep`, of which each layer must have one.
    pub fn narrowed(&self, graph: &Graph, keep: &[bool]) -> Graph {
        let kept = |ids: &[ChannelId]| ids.iter().filter(|&&id| keep[id]).count();
        let mut narrow = graph.clone();
        for (layer, ids) in narrow.layers.iter_mut().zip(&self.of) {
            layer.shape.channels = kept(ids);
            if let Op::Slice { first } = &mut layer.op {
                *first = kept(&self.of[layer.inputs[0]][..*first]);
            }
        }
        narrow
    }

    /// Number of channels.
    pub fn len(&self) -> usize {
        self.fixed.len()
    }

    pub fn is_empty(&self) -> bool {
        self.fixed.is_empty()
    }

    /// The channels that may go, by the layers that they lie in: those of one list can be exchanged
    /// for each other, so that only their number is a matter of the network's shape.
    pub fn spaces(&self) -> Vec<Vec<ChannelId>> {
        let mut layers: Vec<Vec<LayerId>> = vec![Vec::new(); self.len()];
        for (layer, ids) in self.of.iter().enumerate() {
            ids.iter().for_each(|&id| layers[id].push(layer));
        }
        let mut spaces = std::collections::BTreeMap::<&[LayerId], Vec<ChannelId>>::new();
        for id in (0..self.len()).filter(|&id| !self.fixed[id]) {
            spaces.entry(&layers[id]).or_default().push(id);
        }
        spaces.into_values().collect()
    }
}

/// Union-find over ids.
#[derive(Default)]
struct Ties {
    parent: Vec<usize>,
}

impl Ties {
    fn new_id(&mut self) -> usize {
        self.parent.push(self.parent.len());
        self.parent.len() - 1
    }

    fn root(&mut self, mut id: usize) -> usize {
        while self.parent[id] != id {
            self.parent[id] = self.parent[self.parent[id]];
            id = self.parent[id];
        }
        id
    }

    fn tie(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.parent[a.max(b)] = a.min(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Activation, Conv, Padding, Shape};

    fn dense() -> Conv {
        Conv { kernel: 1, stride: 1, depthwise: false, activation: Activation::Relu6, padding: Padding::Same }
    }

    #[test]
    fn sums_tie_channels_and_concatenations_keep_them() {
        let mut g = Graph::new(Shape::new(3, 4, 4));
        let a = g.conv("a", 0, 4, dense());
        let b = g.conv("b", a, 0, Conv { depthwise: true, kernel: 3, ..dense() });
        let c = g.conv("c", b, 4, dense());
        let sum = g.add("sum", a, c);
        let d = g.conv("d", sum, 2, dense());
        let both = g.concat("both", &[d, sum]);
        let out = g.conv("out", both, 5, dense());
        g.outputs.push(out);
        let channels = Channels::of(&g);
        assert_eq!(channels.of[a], channels.of[c]);
        assert_eq!(channels.of[a], channels.of[b]);
        assert_eq!(channels.of[both], [&channels.of[d][..], &channels.of[a][..]].concat());
        assert!(channels.of[out].iter().chain(&channels.of[0]).all(|&id| channels.fixed[id]));
        let mut spaces: Vec<usize> = channels.spaces().iter().map(Vec::len).collect();
        spaces.sort_unstable();
        assert_eq!(spaces, [2, 4]);
    }

    #[test]
    fn a_sum_across_a_concatenation_ties_places_not_layers() {
        let mut g = Graph::new(Shape::new(1, 2, 2));
        let a = g.conv("a", 0, 2, dense());
        let b = g.conv("b", 0, 1, dense());
        let both = g.concat("both", &[a, b]);
        let c = g.conv("c", 0, 3, dense());
        let sum = g.add("sum", both, c);
        let out = g.conv("out", sum, 1, dense());
        g.outputs.push(out);
        let channels = Channels::of(&g);
        assert_eq!(channels.of[c][2], channels.of[b][0]);
        assert_eq!(channels.of[c][..2], channels.of[a]);
        assert_eq!(channels.spaces().len(), 2);
    }

    #[test]
    fn a_shuffle_ties_places_and_a_slice_moves_with_what_is_left() {
        let mut g = Graph::new(Shape::new(3, 2, 2));
        let a = g.conv("a", 0, 6, dense());
        let shuffled = g.shuffle("shuffled", a, 2);
        let part = g.slice("part", shuffled, 2..6);
        let gate = g.global_average("gate", part);
        let scaled = g.scale("scaled", part, gate);
        let out = g.conv("out", scaled, 1, dense());
        g.outputs.push(out);
        let channels = Channels::of(&g);
        let ids = &channels.of[a];
        assert_eq!(ids[..3], ids[3..]);
        assert_eq!(channels.of[scaled], channels.of[gate]);
        // Places 0, 1, 2 of two groups, shuffled: 0 0 1 1 2 2; without place 0, the part begins at 0.
        let keep: Vec<bool> = (0..channels.len()).map(|id| id != ids[0]).collect();
        let narrow = channels.narrowed(&g, &keep);
        narrow.check().unwrap();
        assert_eq!((narrow.layers[part].op, narrow.layers[part].shape.channels), (Op::Slice { first: 0 }, 4));
    }
}
