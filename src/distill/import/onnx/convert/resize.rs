//! Resizing by powers of two.

use anyhow::{bail, ensure, Context};
use peregrine_engine::{Activation, Conv, ConvWeights, Interpolation, Op, Padding, Window};

use super::super::constant::Constant;
use super::super::model::Attributes;
use super::value::{Arrangement, Map, Value};
use super::{constant_of, Converter};
use crate::export::messages::Node;

/// Where a pixel of the result comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sampling {
    /// The pixel that it lies in.
    Nearest,
    /// Between the centres of pixels.
    HalfPixel,
    /// Between the corners of pixels, as TensorFlow 1 has it.
    Corners,
}

impl Converter<'_> {
    pub(super) fn resize(
        &mut self,
        node: &Node,
        name: &str,
        map: &Map,
        inputs: &[Option<Value>],
    ) -> anyhow::Result<Map> {
        let arrangement = map.arrangement.clone();
        let spatial = match arrangement {
            Arrangement::Nchw => [2, 3],
            Arrangement::Nhwc => [1, 2],
            _ => bail!("its operand is not arranged as [1, channels, height, width]"),
        };
        let factor = self.factor(node, map, spatial, inputs)?;
        let (mut layer, scale) = self.scaled(&map.arranged(Arrangement::Nchw))?;
        let channels = self.network.shape(layer).channels;
        let sampling = self.sampling(node, factor)?;
        if factor == 0.5 {
            layer = self.halved(name, layer, sampling)?;
        }
        let times = if factor > 1.0 { factor.log2().round() as usize } else { 0 };
        ensure!(
            times < 2 || sampling == Sampling::Nearest,
            "a linear resize by {factor} is not supported; one by 2 is"
        );
        for _ in 0..times {
            let by = if sampling == Sampling::HalfPixel { Interpolation::Bilinear } else { Interpolation::Nearest };
            layer = self.network.push(name, Op::Upsample2x(by), &[layer], channels)?;
            if sampling == Sampling::Corners {
                // Each pixel and the mean of it and the next: the mean of two of the nearest.
                layer = self.network.push(name, Op::AveragePool(Window::same(2, 1)), &[layer], channels)?;
            }
        }
        Ok(self.times(&Map::of(layer), scale)?.arranged(arrangement))
    }

    fn halved(&mut self, name: &str, layer: usize, sampling: Sampling) -> anyhow::Result<usize> {
        let channels = self.network.shape(layer).channels;
        if sampling == Sampling::HalfPixel {
            return self.network.push(name, Op::AveragePool(Window::even(2, 2)), &[layer], channels);
        }
        let conv =
            Conv { kernel: 1, stride: 2, depthwise: true, activation: Activation::Identity, padding: Padding::Even };
        self.network.conv(name, layer, conv, ConvWeights { weight: vec![1.0; channels], bias: vec![0.0; channels] })
    }

    /// By how much the map grows, in both directions.
    fn factor(&self, node: &Node, map: &Map, spatial: [usize; 2], inputs: &[Option<Value>]) -> anyhow::Result<f32> {
        let dims = map.dims(self.network.shape(map.layer));
        let given = |i: usize, what: &str| {
            Ok::<_, anyhow::Error>(constant_of(inputs, i, what)?.filter(|c| !c.values.is_empty()).map(Constant::floats))
        };
        let old = node.op_type == "Upsample" || self.file.opset < 11;
        let scales = given(if old { 1 } else { 2 }, "scales")?;
        let scales = scales.or_else(|| node.attribute("scales").map(|a| a.floats.clone()).filter(|s| !s.is_empty()));
        let scales = match (scales, if old { None } else { given(3, "sizes")? }) {
            (Some(scales), _) => scales,
            (None, Some(sizes)) => sizes.iter().zip(&dims).map(|(&size, &dim)| size / dim as f32).collect(),
            (None, None) => bail!("it has neither scales nor sizes"),
        };
        let axes = node.int_list("axes").filter(|axes| !axes.is_empty());
        let scale_of = |axis: usize| match axes {
            None => scales.get(axis).copied().filter(|_| scales.len() == dims.len()),
            Some(axes) => match axes.iter().position(|&a| a == axis as i64) {
                Some(at) => scales.get(at).copied(),
                None => Some(1.0),
            },
        };
        let all: Option<Vec<f32>> = (0..dims.len()).map(scale_of).collect();
        let all = all.with_context(|| format!("it has {} scales for {} dimensions", scales.len(), dims.len()))?;
        let [down, across] = spatial.map(|axis| all[axis]);
        let kept = (0..dims.len()).filter(|axis| !spatial.contains(axis)).all(|axis| all[axis] == 1.0);
        ensure!(
            kept && down == across && [0.5, 1.0, 2.0, 4.0, 8.0, 16.0].contains(&down),
            "it resizes by {all:?}; height and width by 2 (or 4, 8, 16 where it takes the nearest pixel) or 0.5 are \
             supported"
        );
        let even = spatial.iter().all(|&axis| dims[axis].is_multiple_of(2));
        ensure!(down != 0.5 || even, "it halves a map of {}x{}, which is not even", dims[spatial[0]], dims[spatial[1]]);
        Ok(down)
    }

    fn sampling(&self, node: &Node, factor: f32) -> anyhow::Result<Sampling> {
        let mode = node.text("mode").unwrap_or("nearest");
        // What was fixed before there were attributes for it.
        let old = node.op_type == "Upsample" || self.file.opset < 11;
        let (place, rounding) = if old { ("asymmetric", "floor") } else { ("half_pixel", "round_prefer_floor") };
        let place = node.text("coordinate_transformation_mode").unwrap_or(place);
        let rounding = node.text("nearest_mode").unwrap_or(rounding);
        ensure!(node.int_or("antialias", 0) == 0, "antialias is not supported");
        match (mode, place, rounding) {
            ("nearest", "asymmetric", "floor" | "round_prefer_floor")
            | ("nearest", "half_pixel" | "pytorch_half_pixel", "round_prefer_floor") => Ok(Sampling::Nearest),
            ("nearest", "half_pixel" | "pytorch_half_pixel", "round_prefer_ceil")
            | ("nearest", "tf_half_pixel_for_nn", "floor")
                if factor >= 1.0 =>
            {
                Ok(Sampling::Nearest)
            }
            ("linear" | "bilinear", "half_pixel" | "pytorch_half_pixel", _) => Ok(Sampling::HalfPixel),
            ("linear" | "bilinear", "asymmetric", _) => Ok(Sampling::Corners),
            _ => bail!("its mode {mode} with coordinates {place} and rounding {rounding} is not supported"),
        }
    }
}
