//! The student's own moving average as its teacher (Tarvainen & Valpola 2017, "Mean teachers are
//! better role models", section 2): no other network is needed. It is the average of one step ago.

use peregrine_engine::{Graph, LayerId};

#[cfg(feature = "cuda")]
use crate::net::cuda::Teaching;
use crate::net::{Mode, NetParams, TrainNet};

/// The average as a network, ready for batches.
pub struct MeanTeacher {
    net: TrainNet,
    /// Layers whose tensors it gives: the graph's outputs, then the requested inner layers.
    given: Vec<LayerId>,
}

impl MeanTeacher {
    /// For batches of `batch` images; it gives the tensors of `layers` besides the outputs.
    /// `average` is there for the parameters' shapes.
    pub fn new(graph: &Graph, average: &NetParams, batch: usize, layers: impl Iterator<Item = LayerId>) -> Self {
        let given = graph.outputs.iter().copied().chain(layers).collect();
        let mut params = average.clone();
        // It is not trained, so no memory for gradients is needed.
        params.convs.iter_mut().for_each(|c| c.frozen = true);
        Self { net: TrainNet::new(graph.clone(), params, batch), given }
    }

    /// The same on the device that `net` is on, as a part of its steps.
    ///
    /// # Errors
    /// When the device has too little memory.
    #[cfg(feature = "cuda")]
    pub fn move_to(&self, net: &mut TrainNet) -> anyhow::Result<()> {
        let graph = net.graph.clone();
        let Some((cuda, params)) = net.cuda() else { return Ok(()) };
        let renormalise = [(1.0, 0.0); 3];
        cuda.teach(&Teaching { graph: &graph, params, given: &self.given, renormalise, is_average: true })
    }

    /// Each of its tensors over the batch, of the network with the parameters `average` for the
    /// `input` `[images, 3, height, width]`, normalised by the averaged running statistics.
    ///
    /// # Errors
    /// When the pass fails, as [`TrainNet::forward`] says.
    pub fn infer(&mut self, average: &NetParams, input: &[f32]) -> anyhow::Result<Vec<Vec<f32>>> {
        self.net.params.clone_from(average);
        self.net.input().copy_from_slice(input);
        self.net.forward(Mode::Evaluate)?;
        Ok(self.given.iter().map(|&layer| self.net.value(layer).to_vec()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::check;
    use peregrine_engine::cpu::CpuEngine;
    use peregrine_engine::Engine;
    use peregrine_student::Architecture;

    #[test]
    fn it_computes_what_the_deployed_average_would() {
        let architecture = Architecture::default_student();
        let graph = architecture.graph(64, 32);
        let layer = graph.layers.iter().position(|l| l.name == "neck.8.add").unwrap();
        let first = NetParams::random(&graph, 1);
        let mut teacher = MeanTeacher::new(&graph, &first, 2, [layer].into_iter());
        for average in [first, NetParams::random(&graph, 2)] {
            let input = check::values(2 * 3 * 64 * 32, 3);
            let found = teacher.infer(&average, &input).unwrap();
            let mut shown = graph.clone();
            shown.outputs.push(layer);
            let mut engine = CpuEngine::new(&shown, &average.fold(), 1).unwrap();
            assert_eq!(found.len(), shown.outputs.len());
            for (image, input) in input.chunks(3 * 64 * 32).enumerate() {
                engine.input().copy_from_slice(input);
                engine.run().unwrap();
                for (i, tensor) in found.iter().enumerate() {
                    let expected = engine.output(i);
                    let largest = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                    let ours = &tensor[image * expected.len()..][..expected.len()];
                    let close = ours.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-3 * largest + 1e-6);
                    assert!(close, "output {i} of image {image}");
                }
            }
        }
    }
}
