//! Pooling.

use anyhow::{bail, ensure, Context};
use peregrine_engine::{Activation, Conv, ConvWeights, Op, Window};

use super::super::fold::axis_of;
use super::super::model::Attributes;
use super::value::{Arrangement, Map, Value};
use super::window::{pair, FileWindow, Placed};
use super::{ints_of, Converter};
use crate::export::messages::Node;

/// The largest window of one maximum; larger ones are a chain of them.
const MAX_WINDOW: usize = 5;

impl Converter<'_> {
    pub(super) fn max_pool(&mut self, node: &Node, name: &str, map: &Map) -> anyhow::Result<Map> {
        let kernel = square(node)?;
        ensure!(pair(node, "dilations", 1)? == [1, 1], "dilated pooling is not supported");
        if let Arrangement::Padded { value, .. } = map.arrangement {
            ensure!(value < -1e30, "the Pad before it puts {value} around the map; only minus infinity is supported");
        }
        let layer = self.pooled(map)?;
        let shape = self.network.shape(layer);
        let file = FileWindow::of(node, map, [kernel; 2], [1, 1])?;
        let half = (kernel - 1) / 2;
        let centred = !kernel.is_multiple_of(2) && [file.pads.top, file.pads.left] == [half; 2];
        if file.stride == 1 && kernel > MAX_WINDOW && centred && (file.pads.bottom, file.pads.right) == (half, half) {
            return self.chained(name, layer, kernel);
        }
        let Placed { window, row, column } = file.place(shape)?;
        ensure!(window.kernel == kernel && (row, column) == (0, 0), "its pads {} are not supported", file.pads);
        Ok(Map::of(self.network.push(name, Op::MaxPool(window), &[layer], shape.channels)?))
    }

    /// A maximum over a large window: of maxima over small ones, since padding never wins.
    fn chained(&mut self, name: &str, mut layer: usize, mut kernel: usize) -> anyhow::Result<Map> {
        let channels = self.network.shape(layer).channels;
        while kernel > 1 {
            let step = kernel.min(MAX_WINDOW);
            layer = self.network.push(name, Op::MaxPool(Window::even(step, 1)), &[layer], channels)?;
            kernel -= step - 1;
        }
        Ok(Map::of(layer))
    }

    pub(super) fn average_pool(&mut self, node: &Node, name: &str, map: &Map) -> anyhow::Result<Map> {
        let kernel = square(node)?;
        let file = FileWindow::of(node, map, [kernel; 2], [1, 1])?;
        let padded = matches!(map.arrangement, Arrangement::Padded { .. });
        if let Arrangement::Padded { value, .. } = map.arrangement {
            ensure!(value == 0.0, "the Pad before it puts {value} around the map; only 0 is supported");
        }
        let layer = self.pooled(map)?;
        let shape = self.network.shape(layer);
        let placed = file.place(shape)?;
        ensure!(placed.window.kernel == kernel, "its pads {} are not supported", file.pads);
        let counted = padded || node.int_or("count_include_pad", 0) != 0;
        let is_padded = file.same || file.pads != Default::default();
        if !(counted && is_padded) {
            return Ok(Map::of(self.network.push(name, Op::AveragePool(placed.window), &[layer], shape.channels)?));
        }
        ensure!(!(padded && node.int_or("count_include_pad", 0) == 0 && file.same), "its padding is not supported");
        // Zeros count: a convolution.
        let window = placed.window;
        let conv = Conv {
            kernel,
            stride: window.stride,
            padding: window.padding,
            depthwise: true,
            activation: Activation::Identity,
        };
        let weight = vec![1.0 / (kernel * kernel) as f32; shape.channels * kernel * kernel];
        Ok(Map::of(self.network.conv(name, layer, conv, ConvWeights { weight, bias: vec![0.0; shape.channels] })?))
    }

    pub(super) fn global_average(
        &mut self,
        node: &Node,
        name: &str,
        map: &Map,
        inputs: &[Option<Value>],
    ) -> anyhow::Result<Map> {
        let mut arrangement = map.arrangement.clone();
        ensure!(
            matches!(arrangement, Arrangement::Nchw | Arrangement::Nhwc),
            "its operand is not arranged as [1, channels, height, width]"
        );
        if node.op_type == "ReduceMean" {
            let axes = ints_of(node, inputs, 1, "axes")?.context("a mean over everything is not supported")?;
            let mut axes = axes.iter().map(|&a| axis_of(a, 4)).collect::<anyhow::Result<Vec<_>>>()?;
            axes.sort_unstable();
            let expected = if arrangement == Arrangement::Nchw { [2, 3] } else { [1, 2] };
            ensure!(axes == expected, "only a mean over height and width is supported, not over axes {axes:?}");
            if node.int_or("keepdims", 1) == 0 {
                arrangement = Arrangement::Flat;
            }
        }
        let (layer, scale) = self.scaled(&map.arranged(Arrangement::Nchw))?;
        let channels = self.network.shape(layer).channels;
        let mean = Map::of(self.network.push(name, Op::GlobalAverage, &[layer], channels)?);
        Ok(self.times(&mean, scale)?.arranged(arrangement))
    }

    /// The layer that a pooling reads, its padding aside.
    fn pooled(&mut self, map: &Map) -> anyhow::Result<usize> {
        match map.arrangement {
            Arrangement::Nchw | Arrangement::Padded { .. } => self.plain(&map.arranged(Arrangement::Nchw)),
            _ => bail!("its operand is not arranged as [1, channels, height, width]"),
        }
    }
}

fn square(node: &Node) -> anyhow::Result<usize> {
    let [height, width] = pair(node, "kernel_shape", 1)?;
    ensure!(height == width, "its window of {height}x{width} is not square");
    ensure!(node.int_or("ceil_mode", 0) == 0, "ceil_mode is not supported; export the network without it");
    Ok(height)
}
