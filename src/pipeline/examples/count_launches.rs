//! How many kernels a frame takes on a GPU, without one: `count_launches PACKAGE …` plans the frame of a 640×480
//! image for an H100 on a driver that only records, and prints the launches in all and those that follow
//! one another (the others run beside them).

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use peregrine_core::Encoding;
use peregrine_engine::cuda::launch::{depth, NodeWork};
use peregrine_engine::cuda::recording::Recording;
use peregrine_engine::cuda::{Driver, Model, Wait};
use peregrine_pipeline::cuda::{Decoding, FrameGraphs, FrameOptions};
use peregrine_student::Student;

fn main() -> Result<(), Box<dyn Error>> {
    let packages: Vec<String> = std::env::args().skip(1).collect();
    if packages.is_empty() {
        return Err("usage: count_launches PACKAGE ...".into());
    }
    println!("| package | input | launches | one after the other |\n|---|---|---|---|");
    for package in &packages {
        let student = Student::load(package.as_ref())?;
        let manifest = &student.manifest;
        let driver: Arc<dyn Driver> = Arc::new(Recording::of_architecture(90));
        let quantization = student.quantization.as_ref();
        let model = Model::shared(&driver, &student.graph(), &student.weights, quantization, &manifest.weights.sha256)?;
        let options = FrameOptions {
            max_detections: 100,
            decoding: Decoding::OnDevice,
            segmentation: manifest.architecture.segmentation_output().is_some(),
            wait: Wait::Block,
            priority: 0,
            timeout: Duration::MAX,
        };
        let mut frame = FrameGraphs::new(&model, &manifest.architecture, options)?;
        frame.prepare(Encoding::Rgb8, (640, 480))?;
        let (nodes, edges) = frame.graph().ok_or("no graph was prepared")?;
        let launches = nodes.iter().filter(|node| matches!(node.work, NodeWork::Kernel(_))).count();
        let input = &manifest.architecture.input;
        println!("| {package} | {}×{} | {launches} | {} |", input.width, input.height, depth(edges));
    }
    Ok(())
}
