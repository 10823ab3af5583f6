//! 3×3 convolutions of stride 1 by F(4×4, 3×3) (Lavin & Gray 2016, "Fast Algorithms for
//! Convolutional Neural Networks"): a quarter of the multiplications.
//!
//! A tile of 4×4 outputs is Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A, d the 6×6 inputs under it and g a filter.
//! Summed over the input channels, each of the 36 products is a matrix product, tiles × input
//! channels × output channels, which the dense kernels compute as a 1×1 convolution whose pixels
//! are tiles. A band of tile rows is worked on at a time, in the thread's scratch. Tiles begin at
//! multiples of four rows, so that results do not depend on how threads share them.

pub(super) mod transforms;

use std::ops::Range;

use super::band_split::BandSplit;
use super::dispatch::{split_evenly, PanelKernels};
use super::input_channels::ChannelRun;
use super::kernels::FloatKernels;
use super::layout::{FloatView, ThreadMemory};
use super::residual::Residual;
use super::simd::BLOCK;
use super::tiles::{DenseTile, MAX_KERNEL};
use crate::{Activation, Conv, ConvWeights};
pub use transforms::TILE;
use transforms::{transformed_filter, InputPatch, OutputPatch, PATCH, PRODUCTS};

/// Floats of transformed inputs and products that a band may take, where one tile row allows: half
/// of a 1 MiB cache.
const BAND_FLOATS: usize = 128 * 1024;

/// A convolution with its filters transformed and packed.
pub struct Winograd {
    panels: Vec<WinogradPanel>,
    /// For each panel `[product][input channel][panel's channels]`: in the order in which they are read.
    weights: Vec<f32>,
    /// What products start from: the bias is added to what is made of them.
    zeros: Vec<f32>,
    bias: Vec<f32>,
    residual: Option<Residual<FloatView>>,
    /// The input's blocks as the dense kernels read them, `plane` floats apart.
    runs: Vec<ChannelRun>,
    /// Output blocks of the widest panel.
    blocks: usize,
    /// Of the input.
    channels: usize,
    /// Tiles across.
    across: usize,
    split: BandSplit,
    /// Floats of one block's tiles.
    plane: usize,
    activation: Activation,
    kernels: &'static FloatKernels,
}

struct WinogradPanel {
    kernels: &'static PanelKernels<DenseTile>,
    first_block: usize,
    weights: usize,
}

impl Winograd {
    /// Whether F(4×4, 3×3) applies and is faster than direct convolution. With few channels the
    /// transforms cost more than the products save; with few tiles (the dense kernels take 12 at a
    /// time) so does reading four times the weights.
    pub fn suits(conv: Conv, input: &FloatView, to: usize, residual: Option<&Residual<FloatView>>) -> bool {
        let s = input.shape;
        (conv.kernel, conv.stride, conv.depthwise) == (3, 1, false)
            && input.block == BLOCK
            && s.channels >= 2 * BLOCK
            && to >= 2 * BLOCK
            && s.height.div_ceil(TILE) * s.width.div_ceil(TILE) >= 12
            && !residual.is_some_and(|r| r.upsampled)
    }

    /// Transforms and packs the weights `[to, input's channels, 3, 3]`, for as many `threads`.
    pub fn new(
        input: &FloatView,
        to: usize,
        values: &ConvWeights,
        activation: Activation,
        residual: Option<Residual<FloatView>>,
        kernels: &'static FloatKernels,
        threads: usize,
    ) -> Self {
        let (from, blocks) = (input.shape.channels, to.div_ceil(BLOCK));
        let across = input.shape.width.div_ceil(TILE);
        let widest = kernels.panels[0].blocks.min(blocks);
        let tile_row = PRODUCTS * across * (input.blocks() + widest) * BLOCK;
        let tile_rows = input.shape.height.div_ceil(TILE);
        let band = (BAND_FLOATS / tile_row).clamp(1, tile_rows);
        let (mut panels, mut first_block, mut at) = (vec![], 0, 0);
        while first_block < blocks {
            let fits = |p: &&PanelKernels<DenseTile>| p.blocks <= blocks - first_block;
            let panel = kernels.panels.iter().find(fits).expect("the last panel has one block");
            panels.push(WinogradPanel { kernels: panel, first_block, weights: at });
            at += PRODUCTS * from * panel.blocks * BLOCK;
            first_block += panel.blocks;
        }
        let split = BandSplit::new(threads, (tile_rows, band), panels.len(), 4 * at);
        // An odd number of cache lines, as in a view.
        let plane = ((split.band() * across * BLOCK).div_ceil(16) | 1) * 16;
        let run = |b: usize| ChannelRun { offset: (b * plane) as isize, len: BLOCK.min(from - b * BLOCK) };
        let runs = (0..input.blocks()).map(run).collect();
        let mut weights = vec![0.0; at];
        for panel in &panels {
            let width = panel.kernels.blocks * BLOCK;
            for lane in 0..width.min(to - panel.first_block * BLOCK) {
                for i in 0..from {
                    let o = panel.first_block * BLOCK + lane;
                    let u = transformed_filter(&values.weight[(o * from + i) * 9..][..9]);
                    for (product, value) in u.into_iter().enumerate() {
                        weights[panel.weights + (product * from + i) * width + lane] = value;
                    }
                }
            }
        }
        let mut bias = values.bias.clone();
        bias.resize(blocks * BLOCK, 0.0);
        Self {
            panels,
            weights,
            zeros: vec![0.0; blocks * BLOCK],
            bias,
            residual,
            runs,
            blocks: widest,
            channels: from,
            across,
            split,
            plane,
            activation,
            kernels,
        }
    }

    /// Parts that threads share.
    pub fn chunks(&self) -> usize {
        self.split.chunks()
    }

    /// Bytes of its transformed weights and biases.
    pub fn weight_bytes(&self) -> usize {
        4 * (self.weights.len() + self.bias.len())
    }

    /// A human-readable description.
    pub fn describe(&self) -> String {
        format!("Winograd 4x4, 3x3/1{}", if self.residual.is_some() { " + residual" } else { "" })
    }

    /// Floats of scratch that it takes.
    pub fn scratch(&self) -> usize {
        PRODUCTS * (self.runs.len() + self.blocks) * self.plane
    }

    /// Computes one of the [`chunks`](Self::chunks); `before` is the one that this thread ran last.
    ///
    /// # Safety
    /// As for a stage's [`run`](super::stage::FloatStage::run); the thread's scratch must have
    /// [`scratch`](Self::scratch) floats.
    pub unsafe fn run(
        &self,
        memory: &ThreadMemory,
        input: &FloatView,
        output: &FloatView,
        chunk: usize,
        before: Option<usize>,
    ) {
        let (tile_rows, panels) = self.split.part(chunk);
        let rows = tile_rows.start * TILE..output.shape.height.min(tile_rows.end * TILE);
        if !self.split.keeps_band(before, chunk) {
            self.transform_inputs(memory, input, rows.clone());
        }
        for panel in &self.panels[panels] {
            for product in 0..PRODUCTS {
                self.multiply(memory, panel, product, tile_rows.len() * self.across);
            }
            let past = (panel.first_block + panel.kernels.blocks).min(output.blocks());
            for block in panel.first_block..past {
                self.transform_outputs(memory, output, panel, block, rows.clone());
            }
        }
    }

    /// A block of a product's inputs in the scratch, `[product][block][tile][BLOCK]`.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    unsafe fn transformed(&self, memory: &ThreadMemory, product: usize, block: usize) -> *mut f32 {
        memory.scratch.add((product * self.runs.len() + block) * self.plane)
    }

    /// A block of a product's results for one panel in the scratch, likewise, after the inputs.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    unsafe fn product(&self, memory: &ThreadMemory, product: usize, block: usize) -> *mut f32 {
        let inputs = PRODUCTS * self.runs.len() * self.plane;
        memory.scratch.add(inputs + (product * self.blocks + block) * self.plane)
    }

    /// Bᵀ d B of every block and tile under output rows `rows`.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    unsafe fn transform_inputs(&self, memory: &ThreadMemory, input: &FloatView, rows: Range<usize>) {
        let (height, width) = (input.shape.height, input.shape.width);
        for block in 0..input.blocks() {
            for (tile_row, y) in rows.clone().step_by(TILE).enumerate() {
                let mut from = [std::ptr::null(); PATCH];
                for (i, row) in from.iter_mut().enumerate() {
                    // One row of padding above: unsigned, so that -1 is far beyond the height.
                    let y = (y + i).wrapping_sub(1);
                    if y < height {
                        // Column -1, which is of the zeros that the view has around its rows.
                        *row = input.at(memory, block, y).sub(BLOCK).cast_const();
                    }
                }
                for tile in 0..self.across {
                    let x = tile * TILE;
                    (self.kernels.winograd_input)(&InputPatch {
                        rows: from.map(|row| if row.is_null() { row } else { row.add(x * BLOCK) }),
                        columns: PATCH.min(width + 1 - x),
                        out: self.transformed(memory, 0, block).add((tile_row * self.across + tile) * BLOCK),
                        step: self.runs.len() * self.plane,
                    });
                }
            }
        }
    }

    /// One of the matrix products for one panel: a 1×1 convolution whose pixels are `tiles`.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    unsafe fn multiply(&self, memory: &ThreadMemory, panel: &WinogradPanel, product: usize, tiles: usize) {
        let from = self.transformed(memory, product, 0).cast_const();
        let out = self.product(memory, product, 0);
        let product_weights = self.channels * panel.kernels.blocks * BLOCK;
        let mut tile = DenseTile {
            rows: [std::ptr::null(); MAX_KERNEL],
            row_count: 1,
            kernel: 1,
            runs: self.runs.as_ptr(),
            run_count: self.runs.len(),
            column: BLOCK,
            pixel: BLOCK,
            weights: self.weights.as_ptr().add(panel.weights + product * product_weights),
            bias: self.zeros.as_ptr().add(panel.first_block * BLOCK),
            out,
            out_plane: self.plane,
            activation: Activation::Identity,
            residual: std::ptr::null(),
            residual_plane: 0,
            upsampled_from: None,
        };
        let kernels = panel.kernels.stride_1;
        for (first, length) in split_evenly(tiles, kernels.len()) {
            tile.rows[0] = from.add(first * BLOCK);
            tile.out = out.add(first * BLOCK);
            kernels[length - 1](&tile);
        }
    }

    /// Aᵀ m A of every tile of a block, bias, activation and residual, to output rows `rows`.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    unsafe fn transform_outputs(
        &self,
        memory: &ThreadMemory,
        output: &FloatView,
        panel: &WinogradPanel,
        block: usize,
        rows: Range<usize>,
    ) {
        let width = output.shape.width;
        for (tile_row, y) in rows.clone().step_by(TILE).enumerate() {
            let height = TILE.min(rows.end - y);
            for tile in 0..self.across {
                let x = tile * TILE;
                let (mut out, mut residual) = ([std::ptr::null_mut(); TILE], [std::ptr::null(); TILE]);
                for i in 0..height {
                    out[i] = output.at(memory, block, y + i).add(x * BLOCK);
                    if let Some(added) = &self.residual {
                        residual[i] = added.view.at(memory, block, y + i).add(x * BLOCK).cast_const();
                    }
                }
                (self.kernels.winograd_output)(&OutputPatch {
                    from: self
                        .product(memory, 0, block - panel.first_block)
                        .add((tile_row * self.across + tile) * BLOCK),
                    step: self.blocks * self.plane,
                    bias: self.bias.as_ptr().add(block * BLOCK),
                    activation: self.activation,
                    rows: out,
                    residual,
                    height,
                    width: TILE.min(width - x),
                });
            }
            for i in 0..height {
                output.zero_border(memory, block, y + i);
            }
        }
    }
}
