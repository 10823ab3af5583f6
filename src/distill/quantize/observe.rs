//! Histograms and channel means of a network's activations over images.

use std::path::{Path, PathBuf};

use peregrine_core::ImageView;
use peregrine_engine::cpu::CpuEngine;
use peregrine_engine::{Engine, Graph};
use peregrine_student::Student;
use peregrine_vision::preprocess::{Letterbox, Normalisation};

use super::calibrate::Histogram;
use crate::data::{load_image, DataError};

/// Network inputs, preprocessed as by the pipeline.
pub struct Inputs(pub Vec<Vec<f32>>);

impl Inputs {
    /// The inputs of `images`, in order.
    ///
    /// # Errors
    /// Names the invalid image.
    pub fn read(student: &Student, images: &[PathBuf]) -> Result<Self, DataError> {
        Ok(Self(images.iter().map(|path| input(student, path)).collect::<Result<_, _>>()?))
    }
}

/// The network's input for the image at `path`.
///
/// # Errors
/// When the image cannot be read.
pub fn input(student: &Student, path: &Path) -> Result<Vec<f32>, DataError> {
    let input = &student.manifest.architecture.input;
    let normalisation = Normalisation { mean: input.mean, std: input.std };
    let image = load_image(path)?;
    let (width, height) = image.dimensions();
    let view = ImageView::new("rgb8", width, height, 3 * width, image.as_raw())
        .map_err(|e| DataError::Image { path: path.to_owned(), why: e.to_string() })?;
    let mut values = vec![0.0; 3 * input.width * input.height];
    Letterbox::new(view.size(), (input.width, input.height)).apply(&view, &normalisation, &mut values);
    Ok(values)
}

/// An engine with every layer's activation as an output.
fn with_all_outputs(student: &Student, graph: &Graph, threads: usize) -> anyhow::Result<CpuEngine> {
    let mut all = graph.clone();
    all.outputs = (0..graph.layers.len()).collect();
    Ok(CpuEngine::new(&all, &student.weights, threads)?)
}

/// Statistics of one layer's activations over all images.
#[derive(Debug, Clone, PartialEq)]
pub struct ActivationStatistics {
    pub histogram: Histogram,
    /// Per channel.
    pub means: Vec<f32>,
}

/// Runs the f32 network twice over `inputs`, for the ranges and for the histograms within them; the
/// result is in the order of the layers. Calls `step` after each run.
///
/// # Errors
/// When the weights do not fit the graph.
pub fn observe(
    student: &Student,
    graph: &Graph,
    inputs: &Inputs,
    threads: usize,
    step: &dyn Fn(),
) -> anyhow::Result<Vec<ActivationStatistics>> {
    let mut engine = with_all_outputs(student, graph, threads)?;
    let mut run = |input: &[f32], visit: &mut dyn FnMut(usize, &[f32])| -> anyhow::Result<()> {
        engine.input().copy_from_slice(input);
        engine.run()?;
        (0..graph.layers.len()).for_each(|layer| visit(layer, engine.output(layer)));
        step();
        Ok(())
    };
    let mut ranges = vec![(0f32, 0f32); graph.layers.len()];
    let mut means: Vec<Vec<f64>> = graph.layers.iter().map(|l| vec![0.0; l.shape.channels]).collect();
    for input in &inputs.0 {
        run(input, &mut |layer, values| {
            let (low, high) = &mut ranges[layer];
            let pixels = graph.layers[layer].shape.pixels();
            for (plane, mean) in values.chunks_exact(pixels).zip(&mut means[layer]) {
                let (mut least, mut most, mut sum) = (*low, *high, 0f32);
                for &v in plane {
                    least = least.min(v);
                    most = most.max(v);
                    sum += v;
                }
                (*low, *high) = (least, most);
                *mean += f64::from(sum) / (pixels * inputs.0.len()) as f64;
            }
        })?;
    }
    let mut histograms: Vec<_> = ranges.iter().map(|&(low, high)| Histogram::new(low, high)).collect();
    for input in &inputs.0 {
        run(input, &mut |layer, values| histograms[layer].add(values))?;
    }
    let narrow = |means: Vec<f64>| means.into_iter().map(|m| m as f32).collect();
    Ok(histograms
        .into_iter()
        .zip(means)
        .map(|(histogram, means)| ActivationStatistics { histogram, means: narrow(means) })
        .collect())
}
