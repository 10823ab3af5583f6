//! Boxes of an image: `cargo run --release -p peregrine-pipeline --example process_image -- IMAGE [PACKAGE]`

use std::error::Error;
use std::path::Path;

use peregrine_pipeline::{DeviceChoice, Pipeline, PipelineOptions};
use peregrine_student::Student;
use peregrine_vision::preprocess::Decompressor;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let image = arguments.next().ok_or("give a JPEG or PNG file, and a package's folder if you like")?;
    let student =
        arguments.next().map_or_else(|| Ok(Student::embedded()), |folder| Student::load(Path::new(&folder)))?;
    let classes = student.manifest.architecture.detection_classes().to_vec();

    let mut decompressor = Decompressor::new();
    let bytes = std::fs::read(&image).map_err(|e| format!("{image}: {e}"))?;
    let view = decompressor.decode(&bytes).map_err(|e| format!("{image}: {e}"))?;

    // `Auto` is the GPU where there is one and the feature `cuda` is on.
    let mut pipeline = Pipeline::on(&student, PipelineOptions::default(), DeviceChoice::Auto)?;
    for detection in &pipeline.process(&view)?.detections {
        let b = detection.bbox;
        let class = &classes[detection.class];
        println!("{class} {:.2} [{:.0}, {:.0}, {:.0}, {:.0}]", detection.score, b.x_min, b.y_min, b.x_max, b.y_max);
    }
    Ok(())
}
