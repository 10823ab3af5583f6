//! Operations that only move values: concatenation, slices, and rearrangements.

use anyhow::{bail, ensure, Context};
use peregrine_engine::Op;

use super::super::fold::{axis_of, reshaped};
use super::super::model::Attributes;
use super::value::{Arrangement, Map, Value};
use super::window::pads_of;
use super::{constant_of, ints_of, Converter};
use crate::export::messages::Node;

impl Converter<'_> {
    pub(super) fn concat(&mut self, node: &Node, name: &str, inputs: &[Option<Value>]) -> anyhow::Result<Map> {
        let maps: Option<Vec<&Map>> =
            inputs.iter().map(|input| if let Some(Value::Map(map)) = input { Some(map) } else { None }).collect();
        let maps =
            maps.filter(|maps| !maps.is_empty()).context("a concatenation of maps and constants is not supported")?;
        let first = maps[0];
        if let Arrangement::Strided { .. } = first.arrangement {
            return self.blocks(node, &maps);
        }
        ensure!(maps.iter().all(|map| map.arrangement == first.arrangement), "its operands are not arranged alike");
        let axis = self.channel_axis(first)?;
        ensure!(
            axis_of(node.int_or("axis", 0), first.dims(self.network.shape(first.layer)).len())? == axis,
            "only a concatenation along channels is supported"
        );
        let layers =
            maps.iter().map(|map| self.plain(&map.arranged(Arrangement::Nchw))).collect::<anyhow::Result<Vec<_>>>()?;
        let made = if layers.len() == 1 { layers[0] } else { self.network.push(name, Op::Concat, &layers, 0)? };
        Ok(Map::of(made).arranged(first.arrangement.clone()))
    }

    /// The parts of every second row and column, one after the other.
    fn blocks(&self, node: &Node, maps: &[&Map]) -> anyhow::Result<Map> {
        let first = maps[0];
        let part = |map: &&Map| match map.arrangement {
            Arrangement::Strided { row: Some(row), column: Some(column) } if map.layer == first.layer => {
                Some((row, column))
            }
            _ => None,
        };
        let parts: Option<Vec<(usize, usize)>> = maps.iter().map(part).collect();
        let plain = maps.iter().all(|map| map.expression.is_identity()) && node.int_or("axis", 0) == 1;
        let parts =
            parts.filter(|_| plain).context("it puts slices with steps together in another way than Focus does")?;
        Ok(first.arranged(Arrangement::Blocks(parts)))
    }

    /// Position of the channels among the dimensions.
    fn channel_axis(&self, map: &Map) -> anyhow::Result<usize> {
        match map.arrangement {
            Arrangement::Nchw | Arrangement::Flat => Ok(1),
            Arrangement::Nhwc => Ok(3),
            _ => bail!("its operand is not arranged as [1, channels, height, width]"),
        }
    }

    pub(super) fn split(
        &mut self,
        node: &Node,
        name: &str,
        map: &Map,
        inputs: &[Option<Value>],
    ) -> anyhow::Result<Vec<Value>> {
        let axis = self.channel_axis(map)?;
        let dims = map.dims(self.network.shape(map.layer));
        ensure!(axis_of(node.int_or("axis", 0), dims.len())? == axis, "only a split along channels is supported");
        let parts = node.output.len();
        let sizes = match ints_of(node, inputs, 1, "split")?.filter(|sizes| !sizes.is_empty()) {
            Some(sizes) => sizes,
            None => vec![dims[axis].div_ceil(parts.max(1)) as i64; parts],
        };
        let sizes: Vec<usize> = sizes.iter().filter_map(|&s| usize::try_from(s).ok().filter(|&s| s > 0)).collect();
        let fits = sizes.len() == parts && sizes.iter().try_fold(0usize, |a, &s| a.checked_add(s)) == Some(dims[axis]);
        ensure!(fits, "it splits {} channels into {sizes:?}, as {parts} tensors", dims[axis]);
        let layer = self.plain(&map.arranged(Arrangement::Nchw))?;
        let mut first = 0;
        let mut made = Vec::new();
        for channels in sizes {
            let part = self.part(name, layer, first, channels)?;
            made.push(Value::Map(part.arranged(map.arrangement.clone())));
            first += channels;
        }
        Ok(made)
    }

    fn part(&mut self, name: &str, layer: usize, first: usize, channels: usize) -> anyhow::Result<Map> {
        Ok(Map::of(self.network.push(name, Op::Slice { first }, &[layer], channels)?))
    }

    pub(super) fn slice(
        &mut self,
        node: &Node,
        name: &str,
        map: &Map,
        inputs: &[Option<Value>],
    ) -> anyhow::Result<Map> {
        let dims = map.dims(self.network.shape(map.layer));
        let list = |i, what| ints_of(node, inputs, i, what);
        let starts = list(1, "starts")?.context("it has no starts")?;
        let ends = list(2, "ends")?.context("it has no ends")?;
        let axes = list(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = list(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
        ensure!(
            [ends.len(), axes.len(), steps.len()] == [starts.len(); 3],
            "its starts, ends, axes and steps differ in number"
        );
        let mut made = map.clone();
        for (((start, end), axis), step) in starts.into_iter().zip(ends).zip(axes).zip(steps) {
            let axis = axis_of(axis, dims.len())?;
            let size = dims[axis] as i64;
            let bound = |v: i64| if v < 0 { v.saturating_add(size) } else { v }.clamp(0, size) as usize;
            made = self.sliced(name, &made, axis, bound(start)..bound(end), step, size as usize)?;
        }
        Ok(made)
    }

    fn sliced(
        &mut self,
        name: &str,
        map: &Map,
        axis: usize,
        range: std::ops::Range<usize>,
        step: i64,
        size: usize,
    ) -> anyhow::Result<Map> {
        if range == (0..size) && step == 1 {
            return Ok(map.clone());
        }
        let (row, column) = match map.arrangement {
            Arrangement::Strided { row, column } => (row, column),
            _ => (None, None),
        };
        let every_second = step == 2 && range.start < 2 && range.end == size && size.is_multiple_of(2);
        let free = matches!(map.arrangement, Arrangement::Nchw | Arrangement::Strided { .. });
        match axis {
            2 if every_second && free && row.is_none() => {
                Ok(map.arranged(Arrangement::Strided { row: Some(range.start), column }))
            }
            3 if every_second && free && column.is_none() => {
                Ok(map.arranged(Arrangement::Strided { row, column: Some(range.start) }))
            }
            _ => {
                let channels = matches!(map.arrangement, Arrangement::Nchw | Arrangement::Nhwc | Arrangement::Flat)
                    && axis == self.channel_axis(map)?;
                ensure!(
                    channels && step == 1 && !range.is_empty(),
                    "it takes {range:?} by {step} of axis {axis}; slices of channels, and every second row and column \
                     for Focus, are supported"
                );
                let layer = self.plain(&map.arranged(Arrangement::Nchw))?;
                let part = self.part(name, layer, range.start, range.len())?;
                Ok(part.arranged(map.arrangement.clone()))
            }
        }
    }

    /// Blocks of 2×2 pixels to channels, the blocks' channels one after the other.
    pub(super) fn space_to_depth(&self, node: &Node, map: &Map) -> anyhow::Result<Map> {
        let even = map.dims(self.network.shape(map.layer))[2..].iter().all(|d| d.is_multiple_of(2));
        let plain = map.arrangement == Arrangement::Nchw && map.expression.is_identity();
        ensure!(
            node.int_or("blocksize", 0) == 2 && even && plain,
            "only blocks of 2x2 pixels of a layer's map are supported"
        );
        Ok(map.arranged(Arrangement::Blocks(vec![(0, 0), (0, 1), (1, 0), (1, 1)])))
    }

    pub(super) fn pad(&self, node: &Node, map: &Map, inputs: &[Option<Value>]) -> anyhow::Result<Map> {
        ensure!(node.text("mode").unwrap_or("constant") == "constant", "only padding by a constant is supported");
        let pads = ints_of(node, inputs, 1, "pads")?.context("it has no pads")?;
        let value = match constant_of(inputs, 2, "value")? {
            Some(value) => value.scalar().context("its value is not one number")?,
            None => node.float_or("value", 0.0),
        };
        ensure!(!inputs.get(3).is_some_and(Option::is_some), "its axes are not supported");
        let &[0, 0, top, left, 0, 0, bottom, right] = &pads[..] else {
            bail!("its pads {pads:?} are not those of height and width alone");
        };
        ensure!(map.arrangement == Arrangement::Nchw, "its operand is not arranged as [1, channels, height, width]");
        Ok(map.arranged(Arrangement::Padded { pads: pads_of([top, left, bottom, right])?, value }))
    }

    pub(super) fn transpose(&self, node: &Node, map: &Map) -> anyhow::Result<Map> {
        let perm = node.int_list("perm").unwrap_or_default();
        let arrangement = match (&map.arrangement, perm) {
            (Arrangement::Nchw, [0, 2, 3, 1]) => Arrangement::Nhwc,
            (Arrangement::Nhwc, [0, 3, 1, 2]) => Arrangement::Nchw,
            (&Arrangement::Groups { groups, swapped }, [0, 2, 1, 3, 4]) => {
                Arrangement::Groups { groups, swapped: !swapped }
            }
            (other, [0, 1, 2, 3]) => other.clone(),
            _ => bail!("its permutation {perm:?} is not supported here"),
        };
        Ok(map.arranged(arrangement))
    }

    pub(super) fn reshape(
        &mut self,
        node: &Node,
        name: &str,
        map: &Map,
        inputs: &[Option<Value>],
    ) -> anyhow::Result<Map> {
        let shape = self.network.shape(map.layer);
        let from = map.dims(shape);
        let to = new_dims(node, &from, inputs)?;
        if to == from {
            return Ok(map.clone());
        }
        let (c, one_pixel) = (shape.channels, shape.pixels() == 1);
        if one_pixel && matches!(map.arrangement, Arrangement::Nchw | Arrangement::Nhwc | Arrangement::Flat) {
            let arrangement = match to[..] {
                [1, channels] if channels == c => Some(Arrangement::Flat),
                [1, channels, 1, 1] if channels == c => Some(Arrangement::Nchw),
                [1, 1, 1, channels] if channels == c => Some(Arrangement::Nhwc),
                _ => None,
            };
            if let Some(arrangement) = arrangement {
                return Ok(map.arranged(arrangement));
            }
        }
        match (&map.arrangement, &to[..]) {
            (Arrangement::Nchw, &[1, groups, each, h, w])
                if groups * each == c && (h, w) == (shape.height, shape.width) =>
            {
                Ok(map.arranged(Arrangement::Groups { groups, swapped: false }))
            }
            (&Arrangement::Groups { groups, swapped }, &[1, channels, h, w])
                if channels == c && (h, w) == (shape.height, shape.width) =>
            {
                if !swapped {
                    return Ok(map.arranged(Arrangement::Nchw));
                }
                let layer = self.plain(&map.arranged(Arrangement::Nchw))?;
                Ok(Map::of(self.network.push(name, Op::Shuffle { groups }, &[layer], c)?))
            }
            _ => bail!("it makes {to:?} of {from:?}, which is neither a channel shuffle nor a map of one pixel"),
        }
    }
}

/// The dimensions that a node which only reshapes gives its operand of dimensions `from`.
fn new_dims(node: &Node, from: &[usize], inputs: &[Option<Value>]) -> anyhow::Result<Vec<usize>> {
    let axes = |rank: usize| -> anyhow::Result<Vec<usize>> {
        let axes = ints_of(node, inputs, 1, "axes")?.unwrap_or_default();
        axes.iter().map(|&a| axis_of(a, rank)).collect()
    };
    Ok(match node.op_type.as_str() {
        "Reshape" => {
            let shape = ints_of(node, inputs, 1, "shape")?.context("it has no shape")?;
            ensure!(node.int_or("allowzero", 0) == 0, "allowzero is not supported");
            reshaped(from, &shape)?
        }
        "Flatten" => {
            let axis = axis_of(node.int_or("axis", 1), from.len())?;
            vec![from[..axis].iter().product(), from[axis..].iter().product()]
        }
        "Squeeze" => {
            let axes = axes(from.len())?;
            let goes = |i: usize| from[i] == 1 && (axes.is_empty() || axes.contains(&i));
            (0..from.len()).filter(|&i| !goes(i)).map(|i| from[i]).collect()
        }
        _ => {
            let given = ints_of(node, inputs, 1, "axes")?.unwrap_or_default();
            let rank = from.len() + given.len();
            let axes = axes(rank)?;
            let mut kept = from.iter();
            let dims: Option<Vec<usize>> =
                (0..rank).map(|i| if axes.contains(&i) { Some(1) } else { kept.next().copied() }).collect();
            dims.context("it names an axis twice")?
        }
    })
}
