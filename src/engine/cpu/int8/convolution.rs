//! Integer convolutions: walks their output tile by tile.

use std::ops::Range;

use super::super::isa::run;
use super::super::layout::Memory;
use super::super::tiles::MAX_KERNEL;
use super::isa::{Depthwise, IntegerIsa, Kernels};
use super::layout::{ByteView, BLOCK, QUAD};
use super::packing::{blocks_and_rest, pack_dense, pack_depthwise, pairs_fit, starts, DensePanel};
use super::tiles::{DenseTile, DepthwiseTile, Epilogue};
use crate::quantization::{QuantizedConv, Requantization};
use crate::{Conv, Shape};

/// What is added to a convolution's result.
#[derive(Debug, Clone, Copy)]
pub struct Residual {
    pub view: ByteView,
    pub upsampled: bool,
    /// Its scale in units of the result's.
    pub factor: f32,
}

impl Residual {
    /// Pixel `x` of row `y` of a block.
    ///
    /// # Safety
    /// As for [`ByteView::at`].
    pub unsafe fn at(&self, memory: &Memory, block: usize, y: usize, x: usize) -> *const u8 {
        let (y, x) = if self.upsampled { (y / 2, x / 2) } else { (y, x) };
        self.view.at(memory, block, y).add(x * BLOCK)
    }
}

/// Where a convolution's result goes.
#[derive(Debug, Clone, Copy)]
pub enum Output {
    Bytes(ByteView),
    /// To this offset of the network's outputs, planar.
    Floats {
        offset: usize,
        shape: Shape,
    },
}

impl Output {
    pub fn shape(&self) -> Shape {
        match self {
            Output::Bytes(view) => view.shape,
            Output::Floats { shape, .. } => *shape,
        }
    }
}

/// A convolution with its weights packed.
pub struct Convolution {
    conv: Conv,
    input: ByteView,
    output: Output,
    residual: Option<Residual>,
    weights: Vec<i8>,
    /// What sums start from, the zero point's share taken off: for each first kernel row inside the input and each row
    /// past the last, all output channels.
    starts: Vec<i32>,
    factor: Vec<f32>,
    offset: Vec<f32>,
    bounds: Option<(f32, f32)>,
    kernels: &'static Kernels,
    kind: Kind,
}

enum Kind {
    /// Its panels of output channels, in order.
    Dense(Vec<DensePanel>),
    Depthwise(&'static Depthwise),
}

impl Convolution {
    /// Packs the weights for `isa`. A depthwise convolution's input must have blocks of 16.
    pub fn new(
        conv: Conv,
        values: &QuantizedConv,
        constants: Requantization,
        input: ByteView,
        output: Output,
        residual: Option<Residual>,
        isa: IntegerIsa,
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
        let (weights, kernels, kind) = if conv.depthwise {
            // Both tables pack alike.
            let sliding = isa.kernels(true).depthwise(conv.kernel, conv.stride).sliding;
            let weights = pack_depthwise(conv.kernel, sliding, blocks, &|o, tap| weight(o, 0, tap));
            let kernels = isa.kernels(pairs_fit(&weights));
            (weights, kernels, Kind::Depthwise(kernels.depthwise(conv.kernel, conv.stride)))
        } else {
            // Whether pairs fit does not depend on the panels: it is tried with those of either table.
            let packed = |kernels: &'static Kernels| pack_dense(kernels, blocks, from, taps, &weight);
            let narrow = isa.kernels(true);
            let (weights, panels) = packed(narrow);
            if pairs_fit(&weights) {
                (weights, narrow, Kind::Dense(panels))
            } else {
                let (weights, panels) = packed(isa.kernels(false));
                (weights, isa.kernels(false), Kind::Dense(panels))
            }
        };
        let zero = i32::from(input.zero) - i32::from(kernels.bias);
        let starts =
            starts(conv.kernel, blocks * BLOCK, zero, &|o, tap| (0..from).map(|i| i32::from(weight(o, i, tap))).sum());
        let Requantization { mut factor, mut offset, bounds } = constants;
        factor.resize(blocks * BLOCK, 0.0);
        offset.resize(blocks * BLOCK, 0.0);
        // What a byte's own bounds do anyway is left to them.
        let saturates = residual.is_none() && matches!(output, Output::Bytes(_));
        let bounds = bounds.filter(|&(low, high)| !(saturates && low <= 0.0 && high >= 255.0));
        Self { conv, input, output, residual, weights, starts, factor, offset, bounds, kernels, kind }
    }

    /// Parts along the channels into which the work can be split.
    pub fn groups(&self) -> usize {
        match &self.kind {
            Kind::Dense(panels) => panels.len(),
            Kind::Depthwise(_) => self.factor.len() / BLOCK,
        }
    }

    pub fn input(&self) -> &ByteView {
        &self.input
    }

    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Bytes of its packed weights.
    pub fn weight_bytes(&self) -> usize {
        self.weights.len()
    }

    /// Which kernel it runs, for people.
    pub fn describe(&self) -> String {
        let Conv { kernel, stride, .. } = self.conv;
        let residual = match self.residual {
            Some(Residual { upsampled: true, .. }) => " + upsampled",
            Some(_) => " + residual",
            None => "",
        };
        let name = self.kernels.name;
        match &self.kind {
            Kind::Dense(panels) => {
                let widths: Vec<_> = panels.iter().map(|p| (p.kernels.blocks * BLOCK).to_string()).collect();
                format!("dense {kernel}x{kernel}/{stride}{residual}, int8 {name}, panels {}", widths.join("+"))
            }
            Kind::Depthwise(_) => format!("depthwise {kernel}x{kernel}/{stride}{residual}, int8 {name}"),
        }
    }

    /// Computes `rows` of the output channels of `groups`.
    ///
    /// # Safety
    /// The views must lie within `memory`, no other thread may write what this reads or touch what it writes, and
    /// the input must have the border that the convolution needs.
    pub unsafe fn run(&self, memory: &Memory, groups: Range<usize>, rows: Range<usize>) {
        match &self.kind {
            Kind::Dense(panels) => {
                for panel in &panels[groups] {
                    for y in rows.clone() {
                        self.dense_row(memory, panel, y);
                    }
                }
            }
            Kind::Depthwise(kernels) => {
                for block in groups {
                    for y in rows.clone() {
                        self.depthwise_row(memory, kernels, block, y);
                    }
                }
            }
        }
    }

    /// Pointers to the input rows under output row `y` of a block, at kernel column 0; how many; the first one's
    /// kernel row.
    ///
    /// # Safety
    /// As for [`run`](Self::run); `y` must be a row of the output.
    #[inline]
    unsafe fn input_rows(&self, memory: &Memory, block: usize, y: usize) -> ([*const u8; MAX_KERNEL], usize, usize) {
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

    /// What the sums of a block start from where kernel rows `first`, … `count` of them, lie inside the input.
    fn start(&self, first: usize, count: usize, block: usize) -> *const i32 {
        let channels = self.factor.len();
        let at = (first * (self.conv.kernel + 1) + first + count) * channels + block * BLOCK;
        self.starts[at..].as_ptr()
    }

    /// The epilogue of the row `y` from a block on, at column 0.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    unsafe fn epilogue(&self, memory: &Memory, block: usize, y: usize) -> Epilogue {
        let residual = self.residual.as_ref();
        let mut epilogue = Epilogue {
            factor: self.factor.as_ptr().add(block * BLOCK),
            offset: self.offset.as_ptr().add(block * BLOCK),
            bounds: self.bounds,
            residual: std::ptr::null(),
            residual_plane: residual.map_or(0, |r| r.view.plane),
            residual_zero: residual.map_or(0.0, |r| f32::from(r.view.zero)),
            residual_factor: residual.map_or(0.0, |r| r.factor),
            upsampled_from: None,
            out: std::ptr::null_mut(),
            out_plane: 0,
            floats: std::ptr::null_mut(),
            float_plane: 0,
            float_channels: 0,
        };
        match &self.output {
            Output::Bytes(view) => {
                epilogue.out = view.at(memory, block, y);
                epilogue.out_plane = view.plane;
            }
            Output::Floats { offset, shape } => {
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
    unsafe fn move_to(&self, to: &mut Epilogue, row: &Epilogue, memory: &Memory, (block, y, x): (usize, usize, usize)) {
        if row.out.is_null() {
            to.floats = row.floats.add(x);
        } else {
            to.out = row.out.add(x * BLOCK);
        }
        if let Some(residual) = &self.residual {
            to.residual = residual.at(memory, block, y, x);
            to.upsampled_from = residual.upsampled.then_some(x);
        }
    }

    /// # Safety
    /// As for [`run`](Self::run).
    #[inline]
    unsafe fn dense_row(&self, memory: &Memory, panel: &DensePanel, y: usize) {
        let Conv { kernel, stride, .. } = self.conv;
        let (rows, row_count, first_row) = self.input_rows(memory, 0, y);
        let (input, first_block) = (&self.input, panel.first_block);
        let (blocks, rest) = blocks_and_rest(input.shape.channels, input.block);
        let row_bytes = kernel * (blocks * BLOCK + rest * QUAD) * panel.kernels.blocks * BLOCK;
        let row_epilogue = self.epilogue(memory, first_block, y);
        let pixel = stride * input.block;
        let mut tile = DenseTile {
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
        for i in 0..pixels.div_ceil(kernels.len()) {
            let (x, length) = run(pixels, kernels.len(), i);
            for (to, from) in tile.rows[..row_count].iter_mut().zip(rows) {
                *to = from.add(x * pixel);
            }
            self.move_to(&mut tile.epilogue, &row_epilogue, memory, (first_block, y, x));
            kernels[length - 1](&tile);
        }
        if let Output::Bytes(view) = &self.output {
            for block in 0..panel.kernels.blocks {
                view.fill_border(memory, first_block + block, y);
            }
        }
    }

    /// # Safety
    /// As for [`run`](Self::run).
    #[inline]
    unsafe fn depthwise_row(&self, memory: &Memory, kernels: &Depthwise, block: usize, y: usize) {
        let Conv { kernel, stride, .. } = self.conv;
        let (rows, row_count, first_row) = self.input_rows(memory, block, y);
        let quads = kernel.div_ceil(QUAD);
        let row_vectors = if kernels.sliding { 2 * QUAD } else { quads };
        let row_epilogue = self.epilogue(memory, block, y);
        let mut tile = DepthwiseTile {
            rows,
            row_count,
            quads,
            pixel: stride * BLOCK,
            weights: self.weights.as_ptr().add((block * kernel + first_row) * row_vectors * BLOCK * QUAD),
            start: self.start(first_row, row_count, block),
            epilogue: row_epilogue,
        };
        let pixels = self.output.shape().width;
        for i in 0..pixels.div_ceil(kernels.tiles.len()) {
            let (x, length) = run(pixels, kernels.tiles.len(), i);
            for (to, from) in tile.rows[..row_count].iter_mut().zip(rows) {
                *to = from.add(x * tile.pixel);
            }
            self.move_to(&mut tile.epilogue, &row_epilogue, memory, (block, y, x));
            kernels.tiles[length - 1](&tile);
        }
        if let Output::Bytes(view) = &self.output {
            view.fill_border(memory, block, y);
        }
    }
}
