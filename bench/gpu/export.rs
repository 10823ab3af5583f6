//! The network for a peer.

use std::path::Path;

use peregrine_core::ImageView;
use peregrine_distill::export::graph;
use peregrine_pipeline::{Pipeline, PipelineOptions};
use peregrine_student::Student;
use peregrine_vision::decode::NmsIou;
use peregrine_vision::preprocess::Letterbox;
use safetensors::tensor::{Dtype, TensorView};

use crate::images::photo;

/// Writes `network.json`, `weights.safetensors`, an image as `image.rgb`, and as `boxes.json` the
/// parameters of box decoding with the boxes that the CPU finds.
pub fn export(student: &Student, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let photo = photo(640, 480)?.into_raw();
    std::fs::write(folder.join("image.rgb"), &photo)?;
    let architecture = &student.manifest.architecture;
    let input = &architecture.input;
    let letterbox = Letterbox::new((640, 480), (input.width, input.height));
    let levels: Vec<_> = architecture
        .detection_levels()
        .iter()
        .map(|level| serde_json::json!({"stride": level.stride, "class": level.class, "sides": level.box_distribution}))
        .collect();
    // As the peers do it: each class by itself.
    let nms_iou = PipelineOptions::default().nms.same_class;
    let options = PipelineOptions { threads: 1, nms: NmsIou::by_class(nms_iou), ..PipelineOptions::default() };
    let threshold = options.score_threshold;
    let found = Pipeline::new(student, options)?
        .process(&ImageView::new("rgb8", 640, 480, 3 * 640, &photo)?)?
        .detections
        .iter()
        .map(|d| {
            let b = letterbox.to_input(d.bbox);
            serde_json::json!({"class": d.class, "score": d.score, "box": [b.x_min, b.y_min, b.x_max, b.y_max]})
        })
        .collect::<Vec<_>>();
    let boxes = serde_json::json!({
        "image": [480, 640, 3], "content": letterbox.content(), "pad": letterbox.pad(), "mean": input.mean, "std": input.std,
        "levels": levels, "bins": architecture.bins(), "mask": architecture.segmentation_output(),
        "score_threshold": threshold, "nms_iou": nms_iou, "found": found,
    });
    std::fs::write(folder.join("boxes.json"), serde_json::to_vec(&boxes)?)?;
    let graph = student.graph();
    std::fs::write(folder.join("network.json"), graph::json(&graph).to_string())?;
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let mut tensors = vec![];
    for (layer, _, shape) in graph.convs() {
        let values = student.weights.of(&layer.name);
        tensors.push((format!("{}.weight", layer.name), shape.to_vec(), bytes(&values.weight)));
        tensors.push((format!("{}.bias", layer.name), vec![shape[0]], bytes(&values.bias)));
    }
    let views = tensors.iter().map(|(name, shape, data)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), data).expect("sizes come from the graph"))
    });
    std::fs::write(folder.join("weights.safetensors"), safetensors::serialize(views, None)?)?;
    Ok(())
}
