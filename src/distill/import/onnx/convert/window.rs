//! How a file's padding is expressed: as [`Padding::Same`] or [`Padding::Even`] of a square kernel,
//! if need be a larger one with zeros around the file's.

use anyhow::{ensure, Context};
use peregrine_engine::{Padding, Shape, Window};

use super::super::model::Attributes;
use super::value::{Arrangement, Map, Pads};
use crate::export::messages::Node;

/// The largest kernel that every engine has.
const MAX_KERNEL: usize = 7;

/// A window as the file has it, over both axes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FileWindow {
    /// Rows and columns that it covers, holes included.
    pub extent: [usize; 2],
    pub stride: usize,
    pub pads: Pads,
    /// Whether the padding follows TensorFlow's rule instead of `pads`.
    pub same: bool,
}

/// A square window, and the row and column of it that the file's begins at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub window: Window,
    pub row: usize,
    pub column: usize,
}

impl FileWindow {
    /// Of a node with the given kernel, whose taps are `dilations` apart.
    ///
    /// # Errors
    /// When strides or padding are none that can be expressed.
    pub fn of(node: &Node, map: &Map, kernel: [usize; 2], dilations: [usize; 2]) -> anyhow::Result<Self> {
        let strides = pair(node, "strides", 1)?;
        ensure!(strides[0] == strides[1], "its strides {strides:?} differ; only equal ones are supported");
        let mut pads = match node.int_list("pads") {
            None | Some([]) => Pads::default(),
            Some(&[top, left, bottom, right]) => pads_of([top, left, bottom, right])?,
            Some(other) => anyhow::bail!("its pads {other:?} are not four"),
        };
        let same = match node.text("auto_pad").unwrap_or("NOTSET") {
            "SAME_UPPER" => true,
            "NOTSET" => false,
            "VALID" => {
                pads = Pads::default();
                false
            }
            other => anyhow::bail!("its auto_pad is {other}; SAME_UPPER, VALID or pads are supported"),
        };
        if let Arrangement::Padded { pads: around, .. } = map.arrangement {
            ensure!(!same, "a Pad before auto_pad SAME_UPPER is not supported");
            pads = pads.plus(around);
        }
        let extent = std::array::from_fn(|axis| (kernel[axis] - 1) * dilations[axis] + 1);
        Ok(Self { extent, stride: strides[0], pads, same })
    }

    /// The smallest square window that computes the same over a map of `shape`.
    ///
    /// # Errors
    /// When there is none: the result would be smaller or larger than the map divided by the stride.
    pub fn place(&self, shape: Shape) -> anyhow::Result<Placed> {
        let smallest = self.extent[0].max(self.extent[1]);
        let paddings = if self.same { &[Padding::Same][..] } else { &[Padding::Even, Padding::Same] };
        let tries = (smallest..=MAX_KERNEL)
            .flat_map(|kernel| paddings.iter().map(move |&padding| Window { kernel, stride: self.stride, padding }));
        tries.into_iter().find_map(|window| self.placed(window, shape)).with_context(|| {
            format!(
                "its kernel of {}x{} with stride {} and pads {} on a map of {shape} is not supported: kernels up to \
                 {MAX_KERNEL} are, with padding that leaves the map's size divided by the stride",
                self.extent[0], self.extent[1], self.stride, self.pads
            )
        })
    }

    fn placed(&self, window: Window, shape: Shape) -> Option<Placed> {
        let pads = [(self.pads.top, self.pads.bottom), (self.pads.left, self.pads.right)];
        let at = |axis: usize, size: usize| {
            let (before, after) =
                if self.same { Window::same(self.extent[axis], self.stride).around(size) } else { pads[axis] };
            let output = (size + before + after).checked_sub(self.extent[axis])? / self.stride + 1;
            let first = window.before(size).checked_sub(before)?;
            (window.output(size) == output && first + self.extent[axis] <= window.kernel).then_some(first)
        };
        Some(Placed { window, row: at(0, shape.height)?, column: at(1, shape.width)? })
    }
}

/// Two integers of at least 1.
pub fn pair(node: &Node, name: &str, default: usize) -> anyhow::Result<[usize; 2]> {
    let Some(list) = node.int_list(name).filter(|list| !list.is_empty()) else { return Ok([default; 2]) };
    let values: Vec<usize> =
        list.iter().filter_map(|&v| usize::try_from(v).ok().filter(|v| (1..=4096).contains(v))).collect();
    <[usize; 2]>::try_from(values).ok().with_context(|| format!("its {name} {list:?} are not two numbers from 1 on"))
}

/// Top, left, bottom and right.
pub fn pads_of(pads: [i64; 4]) -> anyhow::Result<Pads> {
    let of = |v: i64| usize::try_from(v).ok().filter(|&v| v <= 64);
    let [top, left, bottom, right] = pads.map(of);
    let all = top.zip(left).zip(bottom.zip(right));
    let ((top, left), (bottom, right)) = all.with_context(|| format!("its pads {pads:?} are not 0 to 64"))?;
    Ok(Pads { top, left, bottom, right })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(extent: [usize; 2], stride: usize, pads: [usize; 4]) -> Option<(usize, Padding, usize, usize)> {
        let [top, left, bottom, right] = pads;
        let window = FileWindow { extent, stride, pads: Pads { top, left, bottom, right }, same: false };
        let placed = window.place(Shape::new(1, 16, 24)).ok()?;
        Some((placed.window.kernel, placed.window.padding, placed.row, placed.column))
    }

    #[test]
    fn padding_is_expressed_by_the_smallest_square_kernel() {
        assert_eq!(placed([3, 3], 1, [1, 1, 1, 1]), Some((3, Padding::Even, 0, 0)));
        assert_eq!(placed([3, 3], 2, [1, 1, 1, 1]), Some((3, Padding::Even, 0, 0)));
        assert_eq!(placed([3, 3], 2, [0, 0, 1, 1]), Some((3, Padding::Same, 0, 0)));
        assert_eq!(placed([6, 6], 2, [2, 2, 2, 2]), Some((6, Padding::Even, 0, 0)));
        assert_eq!(placed([2, 2], 2, [0, 0, 0, 0]), Some((2, Padding::Even, 0, 0)));
        assert_eq!(placed([1, 1], 2, [0, 0, 0, 0]), Some((1, Padding::Even, 0, 0)));
        assert_eq!(placed([1, 5], 1, [0, 2, 0, 2]), Some((5, Padding::Even, 2, 0)));
        // All padding after the kernel is the other rule; all before it, a larger kernel.
        assert_eq!(placed([2, 2], 1, [0, 0, 1, 1]), Some((2, Padding::Same, 0, 0)));
        assert_eq!(placed([2, 2], 1, [1, 1, 0, 0]), Some((3, Padding::Even, 0, 0)));
    }

    #[test]
    fn padding_that_changes_the_size_is_refused() {
        for (extent, pads) in [([3, 3], [0; 4]), ([3, 3], [2; 4]), ([9, 9], [4; 4]), ([1, 1], [1; 4])] {
            assert_eq!(placed(extent, 1, pads), None, "{extent:?} {pads:?}");
        }
    }
}
