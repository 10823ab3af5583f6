//! The CPU engine.

use super::{Activation, Conv, Engine, EngineError, Graph, Op, Shape, Weights};

/// Runs a graph on CPU cores, in f32.
pub struct CpuEngine {
    graph: Graph,
    weights: Weights,
    tensors: Vec<Vec<f32>>,
}

impl CpuEngine {
    /// Prepares `graph` for `threads` threads (0 counts as 1).
    ///
    /// # Errors
    /// When `weights` do not fit `graph`.
    pub fn new(graph: &Graph, weights: &Weights, _threads: usize) -> Result<Self, EngineError> {
        weights.check(graph)?;
        let tensors = graph.layers.iter().map(|layer| vec![0.0; layer.shape.len()]).collect();
        Ok(Self { graph: graph.clone(), weights: weights.clone(), tensors })
    }
}

impl Engine for CpuEngine {
    fn input(&mut self) -> &mut [f32] {
        &mut self.tensors[0]
    }

    fn run(&mut self) -> Result<(), EngineError> {
        for (id, layer) in self.graph.layers.iter().enumerate() {
            let (before, rest) = self.tensors.split_at_mut(id);
            let out = &mut rest[0][..];
            let from = |i: usize| (&before[layer.inputs[i]][..], self.graph.layers[layer.inputs[i]].shape);
            match layer.op {
                Op::Input => {}
                Op::Conv(conv) => {
                    let w = self.weights.of(&layer.name);
                    let (x, shape) = from(0);
                    convolve(x, shape, &w.weight, &w.bias, conv, out, layer.shape);
                }
                Op::Add => {
                    let ((a, _), (b, _)) = (from(0), from(1));
                    out.iter_mut().zip(a.iter().zip(b)).for_each(|(o, (a, b))| *o = a + b);
                }
                Op::Upsample2x => {
                    let (x, s) = from(0);
                    for (y, row) in out.chunks_exact_mut(2 * s.width).enumerate() {
                        let source = &x[y / 2 * s.width..][..s.width];
                        row.iter_mut().enumerate().for_each(|(i, o)| *o = source[i / 2]);
                    }
                }
                Op::Concat => {
                    let mut at = 0;
                    for i in 0..layer.inputs.len() {
                        let x = from(i).0;
                        out[at..at + x.len()].copy_from_slice(x);
                        at += x.len();
                    }
                }
            }
        }
        Ok(())
    }

    fn output(&self, index: usize) -> &[f32] {
        &self.tensors[self.graph.outputs[index]]
    }
}

fn convolve(x: &[f32], from: Shape, w: &[f32], bias: &[f32], conv: Conv, out: &mut [f32], to: Shape) {
    let (k, s) = (conv.kernel, conv.stride);
    let (top, left) = (conv.pad_before(from.height), conv.pad_before(from.width));
    let per_group = if conv.depthwise { 1 } else { from.channels };
    for (o, plane) in out.chunks_exact_mut(to.pixels()).enumerate() {
        plane.fill(bias[o]);
        for i in 0..per_group {
            let source = &x[(if conv.depthwise { o } else { i }) * from.pixels()..][..from.pixels()];
            for (t, &w) in w[(o * per_group + i) * k * k..][..k * k].iter().enumerate() {
                let (ky, kx) = (t / k, t % k);
                for y in 0..to.height {
                    let Some(sy) = (y * s + ky).checked_sub(top).filter(|&v| v < from.height) else { continue };
                    let source = &source[sy * from.width..][..from.width];
                    let row = &mut plane[y * to.width..][..to.width];
                    let first = left.saturating_sub(kx).div_ceil(s);
                    let last = (from.width + left).saturating_sub(kx).div_ceil(s).min(to.width);
                    for x in first..last.max(first) {
                        row[x] += w * source[x * s + kx - left];
                    }
                }
            }
        }
        if conv.activation == Activation::Relu6 {
            plane.iter_mut().for_each(|v| *v = v.clamp(0.0, 6.0));
        }
    }
}
