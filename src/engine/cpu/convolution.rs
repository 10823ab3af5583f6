//! Convolutions: packs their weights, and walks their output tile by tile.

use std::ops::Range;

use super::dispatch::{split_evenly, DepthwiseKernels, PanelKernels};
use super::input_channels::InputChannels;
use super::kernels::FloatKernels;
use super::layout::{FloatView, ThreadMemory};
use super::residual::Residual;
use super::simd::BLOCK;
use super::tiles::{DenseTile, DepthwiseTile, MAX_KERNEL};
use crate::{Conv, ConvWeights};

/// A convolution with its weights packed.
pub struct FloatConvolution {
    conv: Conv,
    residual: Option<Residual<FloatView>>,
    weights: Vec<f32>,
    bias: Vec<f32>,
    /// Of a dense one.
    channels: InputChannels,
    algorithm: FloatAlgorithm,
}

/// How a convolution is computed.
enum FloatAlgorithm {
    /// Its panels of output channels, in order.
    Dense(Vec<DensePanel>),
    Depthwise(&'static DepthwiseKernels<DepthwiseTile>),
}

struct DensePanel {
    kernels: &'static PanelKernels<DenseTile>,
    first_block: usize,
    /// Offset into the packed weights.
    weights: usize,
}

impl FloatConvolution {
    /// Packs the weights of a convolution from `channels` to `to` channels.
    pub fn new(
        conv: Conv,
        channels: InputChannels,
        to: usize,
        values: &ConvWeights,
        residual: Option<Residual<FloatView>>,
        kernels: &'static FloatKernels,
    ) -> Self {
        let blocks = to.div_ceil(BLOCK);
        let mut bias = values.bias.clone();
        bias.resize(blocks * BLOCK, 0.0);
        let taps = conv.kernel * conv.kernel;
        let mut weights = vec![];
        let algorithm = if conv.depthwise {
            for block in 0..blocks {
                for tap in 0..taps {
                    let value = |c: usize| if c < to { values.weight[c * taps + tap] } else { 0.0 };
                    weights.extend((block * BLOCK..(block + 1) * BLOCK).map(value));
                }
            }
            FloatAlgorithm::Depthwise(DepthwiseKernels::choose(kernels.depthwise, conv.kernel, conv.stride))
        } else {
            let mut panels = vec![];
            let mut first_block = 0;
            while first_block < blocks {
                let fits = |p: &&PanelKernels<DenseTile>| p.blocks <= blocks - first_block;
                let panel = kernels.panels.iter().find(fits).expect("the last panel has one block");
                panels.push(DensePanel { kernels: panel, first_block, weights: weights.len() });
                let outs = first_block * BLOCK..(first_block + panel.blocks) * BLOCK;
                let from = channels.order.len();
                for tap in 0..taps {
                    for &i in &channels.order {
                        let value = |o: usize| if o < to { values.weight[(o * from + i) * taps + tap] } else { 0.0 };
                        weights.extend(outs.clone().map(value));
                    }
                }
                first_block += panel.blocks;
            }
            FloatAlgorithm::Dense(panels)
        };
        Self { conv, residual, weights, bias, channels, algorithm }
    }

    pub fn conv(&self) -> Conv {
        self.conv
    }

    /// Parts along the channels into which the work can be split.
    pub fn groups(&self) -> usize {
        match &self.algorithm {
            FloatAlgorithm::Dense(panels) => panels.len(),
            FloatAlgorithm::Depthwise(_) => self.bias.len() / BLOCK,
        }
    }

    /// Bytes of its packed weights and biases.
    pub fn weight_bytes(&self) -> usize {
        4 * (self.weights.len() + self.bias.len())
    }

    /// A human-readable description of the kernel that it runs.
    pub fn describe(&self) -> String {
        let Conv { kernel, stride, .. } = self.conv;
        let residual = match self.residual {
            Some(Residual { upsampled: true, .. }) => " + upsampled",
            Some(_) => " + residual",
            None => "",
        };
        match &self.algorithm {
            FloatAlgorithm::Dense(panels) => {
                let widths: Vec<_> = panels.iter().map(|p| (p.kernels.blocks * BLOCK).to_string()).collect();
                let scattered =
                    if self.channels.runs.len() > self.channels.order.len().div_ceil(BLOCK) { " gathered" } else { "" };
                format!("dense {kernel}x{kernel}/{stride}{scattered}{residual}, panels {}", widths.join("+"))
            }
            FloatAlgorithm::Depthwise(d) => {
                let generic = if d.kernel == 0 { ", generic" } else { "" };
                format!("depthwise {kernel}x{kernel}/{stride}{residual}{generic}")
            }
        }
    }

    /// Computes `rows` of the output channels of `groups`.
    ///
    /// # Safety
    /// The views must lie within `memory`, no other thread may write what this reads or touch what
    /// it writes, and `input` must have the border that the convolution needs.
    pub unsafe fn run(
        &self,
        memory: &ThreadMemory,
        input: &FloatView,
        output: &FloatView,
        groups: Range<usize>,
        rows: Range<usize>,
    ) {
        match &self.algorithm {
            FloatAlgorithm::Dense(panels) => {
                for panel in &panels[groups] {
                    for y in rows.clone() {
                        self.dense_row(memory, input, output, panel, y);
                    }
                }
            }
            FloatAlgorithm::Depthwise(kernels) => {
                for block in groups {
                    for y in rows.clone() {
                        self.depthwise_row(memory, input, output, kernels, block, y);
                    }
                }
            }
        }
    }

    /// Pointers to the input rows under output row `y` of a block, at kernel column 0; how many;
    /// the first one's kernel row.
    ///
    /// # Safety
    /// As for [`run`](Self::run); `y` must be a row of the output.
    #[inline]
    unsafe fn input_rows(
        &self,
        memory: &ThreadMemory,
        input: &FloatView,
        block: usize,
        y: usize,
    ) -> ([*const f32; MAX_KERNEL], usize, usize) {
        let top = self.conv.pad_before(input.shape.height);
        let left = self.conv.pad_before(input.shape.width) * input.block;
        let first = top.saturating_sub(y * self.conv.stride);
        let past = self.conv.kernel.min(input.shape.height + top - y * self.conv.stride);
        let mut rows = [std::ptr::null(); MAX_KERNEL];
        for (row, k) in rows.iter_mut().zip(first..past) {
            *row = input.at(memory, block, y * self.conv.stride + k - top).sub(left);
        }
        (rows, past - first, first)
    }

    /// # Safety
    /// As for [`run`](Self::run).
    #[inline]
    unsafe fn dense_row(
        &self,
        memory: &ThreadMemory,
        input: &FloatView,
        output: &FloatView,
        panel: &DensePanel,
        y: usize,
    ) {
        let Conv { kernel, stride, .. } = self.conv;
        let (rows, row_count, first_row) = self.input_rows(memory, input, 0, y);
        let from = self.channels.order.len();
        let width = panel.kernels.blocks * BLOCK;
        let out = output.at(memory, panel.first_block, y);
        let mut tile = DenseTile {
            rows,
            row_count,
            kernel,
            runs: self.channels.runs.as_ptr(),
            run_count: self.channels.runs.len(),
            column: input.block,
            pixel: stride * input.block,
            weights: self.weights.as_ptr().add(panel.weights + first_row * kernel * from * width),
            bias: self.bias.as_ptr().add(panel.first_block * BLOCK),
            out,
            out_plane: output.plane,
            activation: self.conv.activation,
            residual: std::ptr::null(),
            residual_plane: self.residual.map_or(0, |r| r.view.plane),
            upsampled_from: None,
        };
        let kernels = if tile.pixel == BLOCK { panel.kernels.stride_1 } else { panel.kernels.any_stride };
        let pixels = output.shape.width;
        for (x, length) in split_evenly(pixels, kernels.len()) {
            for (to, from) in tile.rows[..row_count].iter_mut().zip(rows) {
                *to = from.add(x * tile.pixel);
            }
            tile.out = out.add(x * BLOCK);
            if let Some(residual) = &self.residual {
                tile.residual = residual.at(memory, panel.first_block, y, x);
                tile.upsampled_from = residual.upsampled.then_some(x);
            }
            kernels[length - 1](&tile);
        }
        for block in 0..panel.kernels.blocks {
            output.zero_border(memory, panel.first_block + block, y);
        }
    }

    /// # Safety
    /// As for [`run`](Self::run).
    #[inline]
    unsafe fn depthwise_row(
        &self,
        memory: &ThreadMemory,
        input: &FloatView,
        output: &FloatView,
        kernels: &DepthwiseKernels<DepthwiseTile>,
        block: usize,
        y: usize,
    ) {
        let Conv { kernel, stride, .. } = self.conv;
        let (rows, row_count, first_row) = self.input_rows(memory, input, block, y);
        let out = output.at(memory, block, y);
        let mut tile = DepthwiseTile {
            rows,
            row_count,
            kernel,
            pixel: stride * BLOCK,
            weights: self.weights.as_ptr().add((block * kernel + first_row) * kernel * BLOCK),
            bias: self.bias.as_ptr().add(block * BLOCK),
            out,
            activation: self.conv.activation,
            residual: std::ptr::null(),
            upsampled_from: None,
        };
        let pixels = output.shape.width;
        for (x, length) in split_evenly(pixels, kernels.tiles.len()) {
            for (to, from) in tile.rows[..row_count].iter_mut().zip(rows) {
                *to = from.add(x * stride * BLOCK);
            }
            tile.out = out.add(x * BLOCK);
            if let Some(residual) = &self.residual {
                tile.residual = residual.at(memory, block, y, x);
                tile.upsampled_from = residual.upsampled.then_some(x);
            }
            kernels.tiles[length - 1](&tile);
        }
        output.zero_border(memory, block, y);
    }
}
