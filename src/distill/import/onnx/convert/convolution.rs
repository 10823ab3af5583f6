//! Convolutions; groups, dilations and kernels that are not square become dense square kernels with
//! zeros, and a convolution after Focus one of twice the kernel on the image itself.

use anyhow::{bail, ensure, Context};
use peregrine_engine::{Activation, Conv, ConvWeights, Padding};

use super::super::constant::Constant;
use super::super::model::Attributes;
use super::value::{Arrangement, Map, Value};
use super::window::{pair, FileWindow, Placed};
use super::{constant_of, Converter};
use crate::export::messages::Node;

/// A convolution with more weights than this is refused.
const MAX_WEIGHTS: usize = 1 << 26;

impl Converter<'_> {
    pub(super) fn convolution(
        &mut self,
        node: &Node,
        name: &str,
        map: &Map,
        inputs: &[Option<Value>],
    ) -> anyhow::Result<Map> {
        let filters = Filters::read(node, inputs)?;
        let dilations = pair(node, "dilations", 1)?;
        let (layer, scale) = self.source(map)?;
        let shape = self.network.shape(layer);
        if let Arrangement::Blocks(blocks) = &map.arrangement {
            ensure!(filters.groups == 1 && dilations == [1, 1], "after Focus it must be dense and without dilation");
            return self.on_blocks(node, name, (layer, scale), &filters, blocks);
        }
        if let Arrangement::Padded { value, .. } = map.arrangement {
            ensure!(value == 0.0, "the Pad before it puts {value} around the map; only 0 is supported");
        }
        let placed = FileWindow::of(node, map, filters.kernel, dilations)?.place(shape)?;
        let channels = filters.per_group * filters.groups;
        ensure!(channels == shape.channels, "it reads {channels} channels, of a map of {shape}");
        let depthwise = filters.groups == shape.channels && filters.per_group == 1 && filters.out == shape.channels;
        let weight = filters.expanded(placed, dilations, depthwise)?;
        let window = placed.window;
        let conv = Conv {
            kernel: window.kernel,
            stride: window.stride,
            padding: window.padding,
            depthwise,
            activation: Activation::Identity,
        };
        let weight = weight.into_iter().map(|w| w * scale).collect();
        Ok(Map::of(self.network.conv(name, layer, conv, ConvWeights { weight, bias: filters.bias })?))
    }

    /// The layer and factor that a convolution reads, its arrangement aside.
    fn source(&mut self, map: &Map) -> anyhow::Result<(usize, f32)> {
        match map.arrangement {
            Arrangement::Nchw | Arrangement::Padded { .. } | Arrangement::Blocks(_) => {
                self.scaled(&map.arranged(Arrangement::Nchw))
            }
            _ => bail!("its operand is not arranged as [1, channels, height, width]"),
        }
    }

    /// A convolution of the blocks of 2×2 pixels that Focus has put one after the other: of twice
    /// the kernel, with stride 2.
    fn on_blocks(
        &mut self,
        node: &Node,
        name: &str,
        (layer, scale): (usize, f32),
        filters: &Filters,
        blocks: &[(usize, usize)],
    ) -> anyhow::Result<Map> {
        let channels = self.network.shape(layer).channels;
        let [kernel, across] = filters.kernel;
        let half = (kernel - 1) / 2;
        let pads = node.int_list("pads").unwrap_or(&[0; 4]);
        ensure!(
            kernel == across
                && kernel <= 3
                && pads.iter().all(|&p| p == half as i64)
                && pair(node, "strides", 1)? == [1, 1],
            "after Focus its kernel must be 1x1, or 3x3 with padding 1, and its stride 1"
        );
        ensure!(
            filters.per_group == channels * blocks.len(),
            "it reads {} channels, of {} blocks of {channels}",
            filters.per_group,
            blocks.len()
        );
        let side = 2 * kernel;
        let mut weight = vec![0.0; filters.out * channels * side * side];
        for (from, &w) in filters.weight.iter().enumerate() {
            let (column, row) = (from % kernel, from / kernel % kernel);
            let (input, out) =
                (from / (kernel * kernel) % filters.per_group, from / (kernel * kernel) / filters.per_group);
            let (block, channel) = (input / channels, input % channels);
            let (y, x) = (2 * row + blocks[block].0, 2 * column + blocks[block].1);
            weight[((out * channels + channel) * side + y) * side + x] += w * scale;
        }
        let conv = Conv {
            kernel: side,
            stride: 2,
            depthwise: false,
            activation: Activation::Identity,
            padding: Padding::Even,
        };
        Ok(Map::of(self.network.conv(name, layer, conv, ConvWeights { weight, bias: filters.bias.clone() })?))
    }

    /// A matrix product of a map of one pixel: a 1×1 convolution.
    pub(super) fn matrix(
        &mut self,
        node: &Node,
        name: &str,
        map: &Map,
        inputs: &[Option<Value>],
    ) -> anyhow::Result<Map> {
        ensure!(
            map.arrangement == Arrangement::Flat,
            "only a product of a map of one pixel and constants is supported"
        );
        let gemm = node.op_type == "Gemm";
        let plain = !gemm
            || (node.float_or("alpha", 1.0), node.float_or("beta", 1.0), node.int_or("transA", 0)) == (1.0, 1.0, 0);
        ensure!(plain, "its alpha, beta or transA are not supported");
        let matrix = constant_of(inputs, 1, "matrix")?.context("it has no matrix")?;
        let [rows, columns] = matrix.dims[..] else { bail!("its matrix has the dimensions {:?}", matrix.dims) };
        let values = matrix.floats();
        let transposed = gemm && node.int_or("transB", 0) != 0;
        let (out, from) = if transposed { (rows, columns) } else { (columns, rows) };
        let (layer, scale) = self.scaled(&map.arranged(Arrangement::Nchw))?;
        ensure!(self.network.shape(layer).channels == from, "its matrix takes {from} values, which the map has not");
        let at = |o: usize, i: usize| if transposed { values[o * columns + i] } else { values[i * columns + o] };
        let weight = (0..out * from).map(|k| at(k / from, k % from) * scale).collect();
        let bias = match if gemm { constant_of(inputs, 2, "offset")? } else { None } {
            Some(bias) if bias.values.len() == out => bias.floats(),
            Some(bias) => bail!("it has {} offsets for {out} results", bias.values.len()),
            None => vec![0.0; out],
        };
        let conv =
            Conv { kernel: 1, stride: 1, depthwise: false, activation: Activation::Identity, padding: Padding::Even };
        let made = self.network.conv(name, layer, conv, ConvWeights { weight, bias })?;
        Ok(Map::of(made).arranged(Arrangement::Flat))
    }
}

/// The filters of a convolution in the file.
struct Filters {
    /// `[out, per_group, kernel]`.
    weight: Vec<f32>,
    bias: Vec<f32>,
    out: usize,
    /// Input channels of each filter.
    per_group: usize,
    kernel: [usize; 2],
    groups: usize,
}

impl Filters {
    fn read(node: &Node, inputs: &[Option<Value>]) -> anyhow::Result<Self> {
        let weight: &Constant = constant_of(inputs, 1, "weight")?.context("it has no weights")?;
        let [out, per_group, height, width] = weight.dims[..] else {
            bail!("its weights have the dimensions {:?}; two-dimensional convolutions are supported", weight.dims)
        };
        ensure!(!weight.dims.contains(&0), "its weights have the dimensions {:?}", weight.dims);
        let groups = usize::try_from(node.int_or("group", 1)).ok().filter(|&g| g > 0 && out.is_multiple_of(g));
        let groups = groups.with_context(|| format!("{out} filters are not so many groups"))?;
        let bias = match constant_of(inputs, 2, "bias")? {
            Some(bias) if bias.values.len() == out => bias.floats(),
            Some(bias) => bail!("it has {} biases for {out} filters", bias.values.len()),
            None => vec![0.0; out],
        };
        Ok(Self { weight: weight.floats(), bias, out, per_group, kernel: [height, width], groups })
    }

    /// `[out, in, side, side]`, or `[out, 1, side, side]` where each filter has a channel of its
    /// own.
    fn expanded(&self, placed: Placed, dilations: [usize; 2], depthwise: bool) -> anyhow::Result<Vec<f32>> {
        let Placed { window, row, column } = placed;
        let side = window.kernel;
        let channels = if depthwise { 1 } else { self.per_group * self.groups };
        let count = self.out.checked_mul(channels).and_then(|n| n.checked_mul(side * side));
        let count = count.filter(|&n| n <= MAX_WEIGHTS).context("it has too many weights")?;
        let mut weight = vec![0.0; count];
        let [height, width] = self.kernel;
        let filters_per_group = self.out / self.groups;
        for (from, &w) in self.weight.iter().enumerate() {
            let (x, y) = (from % width, from / width % height);
            let (input, out) = (from / (width * height) % self.per_group, from / (width * height) / self.per_group);
            let channel = if depthwise { 0 } else { out / filters_per_group * self.per_group + input };
            let (y, x) = (row + y * dilations[0], column + x * dilations[1]);
            weight[((out * channels + channel) * side + y) * side + x] = w;
        }
        Ok(weight)
    }
}
