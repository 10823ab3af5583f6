//! Integer convolutions: walks their output tile by tile.

use std::ops::Range;

use super::super::dispatch::{split_evenly, DepthwiseKernels};
use super::super::layout::ThreadMemory;
use super::super::residual::Residual;
use super::super::tiles::MAX_KERNEL;
use super::isa::IntegerIsa;
use super::kernels::{is_sliding, IntegerKernels};
use super::layout::{ByteView, BLOCK, QUAD};
use super::packing::{blocks_and_rest, pack_dense, pack_depthwise, pairs_fit, starts, IntegerDensePanel};
use super::residual::ScaledResidual;
use super::tiles::{Epilogue, IntegerDenseTile, IntegerDepthwiseTile};
use super::winograd::{Winograd, TILE};
use crate::quantization::{LateActivation, QuantizedConv, Requantization};
use crate::{Conv, Shape};

/// Where a convolution's result goes.
#[derive(Debug, Clone, Copy)]
pub enum ConvolutionOutput {
    Bytes(ByteView),
    /// To this offset of the network's outputs, planar.
    Floats {
        offset: usize,
        shape: Shape,
    },
}

impl ConvolutionOutput {
    pub fn shape(&self) -> Shape {
        match self {
            ConvolutionOutput::Bytes(view) => view.shape,
            ConvolutionOutput::Floats { shape, .. } => *shape,
        }
    }
}

/// A convolution with its weights packed.
pub struct IntegerConvolution {
    conv: Conv,
    input: ByteView,
    output: ConvolutionOutput,
    residual: Option<ScaledResidual>,
    weights: Vec<i8>,
    /// What sums start from, the zero point's share taken off: for each first kernel row inside the
    /// input and each row past the last, all output channels.
    starts: Vec<i32>,
    factor: Vec<f32>,
    offset: Vec<f32>,
    bounds: Option<(f32, f32)>,
    late: Option<LateActivation>,
    kernels: &'static IntegerKernels,
    algorithm: IntegerAlgorithm,
}

/// How a convolution is computed.
enum IntegerAlgorithm {
    /// Its panels of output channels, in order.
    Dense(Vec<IntegerDensePanel>),
    Depthwise(&'static DepthwiseKernels<IntegerDepthwiseTile>),
    Winograd(Winograd),
}

impl IntegerConvolution {
    /// Packs the weights for `isa` and as many `threads`. A depthwise convolution's input must have blocks of 16.
    pub fn new(
        conv: Conv,
        values: &QuantizedConv,
        constants: Requantization,
        input: ByteView,
        output: ConvolutionOutput,
        residual: Option<ScaledResidual>,
        (isa, threads): (IntegerIsa, usize),
    ) -> Self {
        let to = output.shape().channels;
        let blocks = to.div_ceil(BLOCK);
        let from = if conv.depthwise { 1 } else { input.shape.channels };
        let taps = conv.kernel * conv.kernel;
        let weight = |o: usize, i: usize, tap: usize| {
            if o < to && i < from {
                values.weight[(o * from + i) * taps + tap]
            } else {
                0
            }
        };
        let to_bytes = matches!(output, ConvolutionOutput::Bytes(_));
        let upsampled = residual.as_ref().is_some_and(|r| r.tensor.upsampled);
        let suits = || to_bytes && !upsampled && Winograd::suits(conv, &input, to, &values.weight);
        let by_winograd = isa.kernels(true).winograd.filter(|_| suits());
        let (weights, kernels, algorithm) = if conv.depthwise {
            // Both tables pack alike.
            let sliding = is_sliding(DepthwiseKernels::choose(isa.kernels(true).depthwise, conv.kernel, conv.stride));
            let weights = pack_depthwise(conv.kernel, sliding, blocks, &|o, tap| weight(o, 0, tap));
            let kernels = isa.kernels(pairs_fit(&weights));
            let depthwise = DepthwiseKernels::choose(kernels.depthwise, conv.kernel, conv.stride);
            (weights, kernels, IntegerAlgorithm::Depthwise(depthwise))
        } else if let Some(kernels) = by_winograd {
            let winograd = Winograd::new(&input, to, &values.weight, kernels, threads);
            (vec![], isa.kernels(true), IntegerAlgorithm::Winograd(winograd))
        } else {
            // Whether pairs fit does not depend on the panels: it is tried with those of either
            // table.
            let packed = |kernels: &'static IntegerKernels| pack_dense(kernels, blocks, from, taps, &weight);
            let narrow = isa.kernels(true);
            let (weights, panels) = packed(narrow);
            if pairs_fit(&weights) {
                (weights, narrow, IntegerAlgorithm::Dense(panels))
            } else {
                let (weights, panels) = packed(isa.kernels(false));
                (weights, isa.kernels(false), IntegerAlgorithm::Dense(panels))
            }
        };
        let zero = i32::from(input.zero) - i32::from(kernels.bias);
        let starts =
            starts(conv.kernel, blocks * BLOCK, zero, &|o, tap| (0..from).map(|i| i32::from(weight(o, i, tap))).sum());
        let Requantization { mut factor, mut offset, bounds, late } = constants;
        factor.resize(blocks * BLOCK, 0.0);
        offset.resize(blocks * BLOCK, 0.0);
        // What a byte's own bounds do anyway is left to them.
        let saturates = residual.is_none() && to_bytes;
        let bounds = bounds.filter(|&(low, high)| !(saturates && low <= 0.0 && high >= 255.0));
        Self { conv, input, output, residual, weights, starts, factor, offset, bounds, late, kernels, algorithm }
    }

    /// Parts along the channels into which the work can be split.
    pub fn groups(&self) -> usize {
        match &self.algorithm {
            IntegerAlgorithm::Dense(panels) => panels.len(),
            IntegerAlgorithm::Depthwise(_) | IntegerAlgorithm::Winograd(_) => self.factor.len() / BLOCK,
        }
    }

    /// Its transformed filters, where it is computed by them: it has a split and scratch of its own then.
    pub fn winograd(&self) -> Option<&Winograd> {
        match &self.algorithm {
            IntegerAlgorithm::Winograd(winograd) => Some(winograd),
            _ => None,
        }
    }

    pub fn input(&self) -> &ByteView {
        &self.input
    }

    pub fn output(&self) -> &ConvolutionOutput {
        &self.output
    }

    /// Bytes of its packed weights.
    pub fn weight_bytes(&self) -> usize {
        match &self.algorithm {
            IntegerAlgorithm::Winograd(winograd) => winograd.weight_bytes(),
            _ => self.weights.len(),
        }
    }

    /// A human-readable description of the kernel that it runs.
    pub fn describe(&self) -> String {
        let Conv { kernel, stride, .. } = self.conv;
        let residual = match self.residual {
            Some(ScaledResidual { tensor: Residual { upsampled: true, .. }, .. }) => " + upsampled",
            Some(_) => " + residual",
            None => "",
        };
        let name = self.kernels.name;
        match &self.algorithm {
            IntegerAlgorithm::Dense(panels) => {
                let widths: Vec<_> = panels.iter().map(|p| (p.kernels.blocks * BLOCK).to_string()).collect();
                format!("dense {kernel}x{kernel}/{stride}{residual}, int8 {name}, panels {}", widths.join("+"))
            }
            IntegerAlgorithm::Depthwise(_) => format!("depthwise {kernel}x{kernel}/{stride}{residual}, int8 {name}"),
            IntegerAlgorithm::Winograd(_) => format!("Winograd 4x4, 3x3/1{residual}, int8 {name}"),
        }
    }

    /// Computes `rows` of the output channels of `groups`.
    ///
    /// # Safety
    /// The views must lie within `memory`, no other thread may write what this reads or touch what
    /// it writes, and the input must have the border that the convolution needs.
    pub unsafe fn run(&self, memory: &ThreadMemory, groups: Range<usize>, rows: Range<usize>) {
        match &self.algorithm {
            IntegerAlgorithm::Dense(panels) => {
                for panel in &panels[groups] {
                    for y in rows.clone() {
                        self.dense_row(memory, panel, y);
                    }
                }
            }
            IntegerAlgorithm::Depthwise(kernels) => {
                for block in groups {
                    for y in rows.clone() {
                        self.depthwise_row(memory, kernels, block, y);
                    }
                }
            }
            IntegerAlgorithm::Winograd(_) => unreachable!("has its own split"),
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
        block: usize,
        y: usize,
    ) -> ([*const u8; MAX_KERNEL], usize, usize) {
        let input = &self.input;
        let top = self.conv.pad_before(input.shape.height);
        let left = self.conv.pad_before(input.shape.width) * input.block;
        let first = top.saturating_sub(y * self.conv.stride);
        let past = self.conv.kernel.min(input.shape.height + top - y * self.conv.stride);
        let mut rows = [std::ptr::null(); MAX_KERNEL];
        for (row, k) in rows.iter_mut().zip(first..past) {
            *row = input.at(memory, block, y * self.conv.stride + k - top).sub(left).cast_const();
        }
        (rows, past - first, first)
    }

    /// What the sums of a block start from where kernel rows `first`, … `count` of them, lie inside
    /// the input.
    fn start(&self, first: usize, count: usize, block: usize) -> *const i32 {
        let channels = self.factor.len();
        let at = (first * (self.conv.kernel + 1) + first + count) * channels + block * BLOCK;
        self.starts[at..].as_ptr()
    }

    /// The epilogue of the row `y` from a block on, at column 0.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    unsafe fn epilogue(&self, memory: &ThreadMemory, block: usize, y: usize) -> Epilogue {
        let residual = self.residual.as_ref();
        let mut epilogue = Epilogue {
            factor: self.factor.as_ptr().add(block * BLOCK),
            offset: self.offset.as_ptr().add(block * BLOCK),
            bounds: self.bounds,
            late: self.late.map(|late| (late, self.kernels.activate)),
            residual: std::ptr::null(),
            residual_plane: residual.map_or(0, |r| r.tensor.view.plane),
            residual_zero: residual.map_or(0.0, |r| f32::from(r.tensor.view.zero)),
            residual_factor: residual.map_or(0.0, |r| r.factor),
            upsampled_from: None,
            out: std::ptr::null_mut(),
            out_plane: 0,
            floats: std::ptr::null_mut(),
            float_plane: 0,
            float_channels: 0,
        };
        match &self.output {
            ConvolutionOutput::Bytes(view) => {
                epilogue.out = view.at(memory, block, y);
                epilogue.out_plane = view.plane;
            }
            ConvolutionOutput::Floats { offset, shape } => {
                let at = offset + block * BLOCK * shape.pixels() + y * shape.width;
                epilogue.floats = memory.outputs.add(at);
                epilogue.float_plane = shape.pixels();
                epilogue.float_channels = shape.channels - block * BLOCK;
            }
        }
        epilogue
    }

    /// Moves an epilogue from column 0 to column `x`.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    #[inline]
    unsafe fn move_to(
        &self,
        to: &mut Epilogue,
        row: &Epilogue,
        memory: &ThreadMemory,
        (block, y, x): (usize, usize, usize),
    ) {
        if row.out.is_null() {
            to.floats = row.floats.add(x);
        } else {
            to.out = row.out.add(x * BLOCK);
        }
        if let Some(ScaledResidual { tensor: residual, .. }) = &self.residual {
            to.residual = residual.at(memory, block, y, x);
            to.upsampled_from = residual.upsampled.then_some(x);
        }
    }

    /// # Safety
    /// As for [`run`](Self::run).
    #[inline]
    unsafe fn dense_row(&self, memory: &ThreadMemory, panel: &IntegerDensePanel, y: usize) {
        let Conv { kernel, stride, .. } = self.conv;
        let (rows, row_count, first_row) = self.input_rows(memory, 0, y);
        let (input, first_block) = (&self.input, panel.first_block);
        let (blocks, rest) = blocks_and_rest(input.shape.channels, input.block);
        let row_bytes = kernel * (blocks * BLOCK + rest * QUAD) * panel.kernels.blocks * BLOCK;
        let row_epilogue = self.epilogue(memory, first_block, y);
        let pixel = stride * input.block;
        let mut tile = IntegerDenseTile {
            rows,
            row_count,
            kernel,
            column: input.block,
            plane: input.plane,
            blocks,
            rest,
            pixel,
            weights: self.weights.as_ptr().add(panel.weights + first_row * row_bytes),
            start: self.start(first_row, row_count, first_block),
            epilogue: row_epilogue,
        };
        let kernels = if pixel == BLOCK { panel.kernels.stride_1 } else { panel.kernels.any_stride };
        let pixels = self.output.shape().width;
        for (x, length) in split_evenly(pixels, kernels.len()) {
            for (to, from) in tile.rows[..row_count].iter_mut().zip(rows) {
                *to = from.add(x * pixel);
            }
            self.move_to(&mut tile.epilogue, &row_epilogue, memory, (first_block, y, x));
            kernels[length - 1](&tile);
        }
        if let ConvolutionOutput::Bytes(view) = &self.output {
            for block in 0..panel.kernels.blocks {
                view.fill_border(memory, first_block + block, y);
            }
        }
    }

    /// Computes one of the chunks of `winograd`, which is its [`winograd`](Self::winograd); `before` is the one that this
    /// thread ran last.
    ///
    /// # Safety
    /// As for [`run`](Self::run); the thread's scratch must be large enough, and hold what `before` has left there.
    pub unsafe fn run_winograd(&self, memory: &ThreadMemory, winograd: &Winograd, chunk: usize, before: Option<usize>) {
        let (tile_rows, blocks) = winograd.split().part(chunk);
        let band = tile_rows.start * TILE..self.input.shape.height.min(tile_rows.end * TILE);
        if !winograd.split().keeps_band(before, chunk) {
            winograd.transform_inputs(memory, &self.input, band.clone());
        }
        for block in blocks {
            self.winograd_band(memory, winograd, block, band.clone());
        }
    }

    /// A block of outputs of a band whose inputs are transformed.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    unsafe fn winograd_band(&self, memory: &ThreadMemory, winograd: &Winograd, block: usize, band: Range<usize>) {
        let (across, width) = (winograd.across(), self.input.shape.width);
        let ConvolutionOutput::Bytes(view) = &self.output else { unreachable!("what departs is computed directly") };
        winograd.multiply(memory, block, band.len().div_ceil(TILE) * across);
        for (tile_row, y) in band.clone().step_by(TILE).enumerate() {
            let height = TILE.min(band.end - y);
            let rows: [Epilogue; TILE] = std::array::from_fn(|i| self.epilogue(memory, block, y + i.min(height - 1)));
            let mut epilogues = rows;
            for tile in 0..across {
                let x = tile * TILE;
                for i in 0..height {
                    self.move_to(&mut epilogues[i], &rows[i], memory, (block, y + i, x));
                }
                let (tile, start) = (tile_row * across + tile, self.start(0, self.conv.kernel, block));
                winograd.transform_outputs(memory, tile, start, &epilogues[..height], TILE.min(width - x));
            }
            for i in 0..height {
                view.fill_border(memory, block, y + i);
            }
        }
    }

    /// # Safety
    /// As for [`run`](Self::run).
    #[inline]
    unsafe fn depthwise_row(
        &self,
        memory: &ThreadMemory,
        kernels: &DepthwiseKernels<IntegerDepthwiseTile>,
        block: usize,
        y: usize,
    ) {
        let Conv { kernel, stride, .. } = self.conv;
        let (rows, row_count, first_row) = self.input_rows(memory, block, y);
        let quads = kernel.div_ceil(QUAD);
        let row_vectors = if is_sliding(kernels) { 2 * QUAD } else { quads };
        let row_epilogue = self.epilogue(memory, block, y);
        let mut tile = IntegerDepthwiseTile {
            rows,
            row_count,
            quads,
            pixel: stride * BLOCK,
            weights: self.weights.as_ptr().add((block * kernel + first_row) * row_vectors * BLOCK * QUAD),
            start: self.start(first_row, row_count, block),
            epilogue: row_epilogue,
        };
        let pixels = self.output.shape().width;
        for (x, length) in split_evenly(pixels, kernels.tiles.len()) {
            for (to, from) in tile.rows[..row_count].iter_mut().zip(rows) {
                *to = from.add(x * tile.pixel);
            }
            self.move_to(&mut tile.epilogue, &row_epilogue, memory, (block, y, x));
            kernels.tiles[length - 1](&tile);
        }
        if let ConvolutionOutput::Bytes(view) = &self.output {
            view.fill_border(memory, block, y);
        }
    }
}
