//! What a frame makes the device do: kernels and copies, and which must wait for which.

use std::ops::Range;

use super::plain::Plain;

/// Addresses on the device that a node reads or writes.
pub type Span = Range<u64>;

/// `bytes` from `start` on.
pub fn span(start: u64, bytes: usize) -> Span {
    start..start + bytes as u64
}

/// One thing that the device does.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Human-readable: the layer, or what is done to it.
    pub name: String,
    pub work: NodeWork,
    pub reads: Vec<Span>,
    pub writes: Vec<Span>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum NodeWork {
    Kernel(Launch),
    /// From pinned memory to the device.
    Upload {
        host: u64,
        device: u64,
        bytes: usize,
    },
    /// From the device to pinned memory.
    Download {
        device: u64,
        host: u64,
        bytes: usize,
    },
}

/// A kernel with its grid and argument.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    pub kernel: String,
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// The kernel's only parameter, by value.
    pub argument: Vec<u8>,
}

impl Launch {
    /// `items` things, `threads` of them to a block.
    pub fn flat(kernel: impl Into<String>, items: usize, threads: u32, argument: &impl Plain) -> Self {
        let blocks = u32::try_from(items.div_ceil(threads as usize)).expect("checked when the network was planned");
        Self { kernel: kernel.into(), grid: [blocks, 1, 1], threads, argument: argument.bytes() }
    }
}

/// For each node those before it that it must wait for: the ones that write what it reads, and
/// those that read or write what it writes. What is implied by others is left out.
pub fn dependencies(nodes: &[Node]) -> Vec<Vec<usize>> {
    let clash = |a: &[Span], b: &[Span]| a.iter().any(|a| b.iter().any(|b| a.start < b.end && b.start < a.end));
    // All that each node waits for, directly or not.
    let mut ancestors: Vec<Vec<bool>> = Vec::with_capacity(nodes.len());
    let mut edges = Vec::with_capacity(nodes.len());
    for (i, node) in nodes.iter().enumerate() {
        let (mut direct, mut known) = (vec![], vec![false; i]);
        for j in (0..i).rev() {
            let before = &nodes[j];
            let ordered = clash(&node.reads, &before.writes)
                || clash(&node.writes, &before.writes)
                || clash(&node.writes, &before.reads);
            if ordered && !known[j] {
                direct.push(j);
                known[j] = true;
                ancestors[j].iter().enumerate().for_each(|(k, &ancestor)| known[k] |= ancestor);
            }
        }
        direct.reverse();
        edges.push(direct);
        ancestors.push(known);
    }
    edges
}

/// The number of nodes on the longest path through the graph, with which its latency grows.
pub fn depth(edges: &[Vec<usize>]) -> usize {
    let mut depths: Vec<usize> = Vec::with_capacity(edges.len());
    for before in edges {
        depths.push(1 + before.iter().map(|&j| depths[j]).max().unwrap_or(0));
    }
    depths.into_iter().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(reads: &[Span], writes: &[Span]) -> Node {
        let work = NodeWork::Upload { host: 0, device: 0, bytes: 0 };
        Node { name: String::new(), work, reads: reads.to_vec(), writes: writes.to_vec() }
    }

    #[test]
    fn nodes_wait_for_what_they_read_and_for_what_they_overwrite() {
        let [a, b, c] = [0..8, 8..16, 16..24];
        let nodes = [
            node(&[], std::slice::from_ref(&a)),
            node(std::slice::from_ref(&a), std::slice::from_ref(&b)),
            node(std::slice::from_ref(&a), std::slice::from_ref(&c)),
            // Overwrites a, which two read; the path over them makes waiting for the first node
            // needless.
            node(&[b, c], &[a]),
        ];
        assert_eq!(dependencies(&nodes), [vec![], vec![0], vec![0], vec![1, 2]]);
        assert_eq!(depth(&dependencies(&nodes)), 3);
    }
}
