//! Runs a student package on an image and prints the objects that it finds, in pixels of the image:
//! `cargo run -p peregrine-engine --example run_package -- models/peregrine-s
//! models/frames/highway-00.jpg`

use std::error::Error;
use std::path::Path;

use peregrine_core::{Encoding, ImageView};
use peregrine_engine::cpu::CpuEngine;
use peregrine_engine::Engine;
use peregrine_student::Student;
use peregrine_vision::decode::{non_max_suppression, HeadDecoder, NmsIou};
use peregrine_vision::preprocess::{Letterbox, Normalisation};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [package, image] = &arguments[..] else { return Err("usage: run_package PACKAGE IMAGE".into()) };
    find(package.as_ref(), image.as_ref())?.iter().for_each(|object| println!("{object}"));
    Ok(())
}

/// Class, score and box of every object.
pub fn find(package: &Path, image: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let student = Student::load(package)?;
    let (architecture, image) = (&student.manifest.architecture, image::open(image)?.to_rgb8());
    let mut engine = CpuEngine::new(&student.graph(), &student.weights, 2)?;

    let view = ImageView::with_encoding(Encoding::Rgb8, image.width(), image.height(), 3 * image.width(), &image)?;
    let letterbox = Letterbox::new(view.size(), (architecture.input.width, architecture.input.height));
    let normalisation = Normalisation { mean: architecture.input.mean, std: architecture.input.std };
    letterbox.apply(&view, &normalisation, engine.input());
    engine.run()?;

    let mut found = Vec::new();
    let mut head = HeadDecoder::new(architecture, architecture.input.width, architecture.input.height);
    head.decode(|output| engine.output(output), 0.3, &mut found);
    non_max_suppression(&mut found, NmsIou::by_class(0.5), 100);
    let classes = architecture.detection_classes();
    Ok(found.iter().map(|d| format!("{} {:.2} {:?}", classes[d.class], d.score, letterbox.to_source(d.bbox))).collect())
}
