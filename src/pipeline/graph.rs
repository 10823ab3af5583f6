//! The network that a pipeline runs.

use peregrine_engine::Graph;
use peregrine_student::Architecture;

use super::options::PipelineOptions;

/// The graph that a pipeline with `options` runs: at `options.input_size`, without the segmentation head if it is off.
pub fn graph_for(architecture: &Architecture, options: &PipelineOptions) -> Graph {
    let input = &architecture.input;
    let (width, height) = options.input_size.unwrap_or((input.width, input.height));
    let mut graph = architecture.graph(width, height);
    if let (false, Some(output)) = (options.segmentation, architecture.segmentation_output()) {
        // Its layers come last, and nothing else reads them.
        graph.outputs.truncate(output);
        let last = graph.outputs.iter().max().copied().unwrap_or(0);
        graph.layers.truncate(last + 1);
    }
    graph
}
