//! Networks out of ONNX files, and descriptions of teachers.

use peregrine_distill::import::onnx::description::NetworkDescription;
use peregrine_distill::import::onnx::model::OnnxFile;
use peregrine_distill::import::onnx::network;
use peregrine_distill::teacher::TeacherDescription;

use crate::scratch::Scratch;
use crate::tracked;

/// The networks that the importer's tests keep, each with its description.
const NETWORKS: [&str; 6] = ["centernet", "nanodet_plus", "picodet", "yolov5", "yolov8", "yolox"];

fn reference(name: &str, ending: &str) -> Vec<u8> {
    tracked(&format!("tests/reference/networks/{name}.{ending}"))
}

fn described(name: &str) -> NetworkDescription {
    let folder = Scratch::new(&[("network.toml", &reference(name, "toml"))]);
    NetworkDescription::read(&folder.path().join("network.toml")).expect("a test keeps it")
}

/// `[description]` and an ONNX file: read, and converted as that says.
pub fn onnx(data: &[u8]) {
    thread_local!(static DESCRIPTIONS: Vec<NetworkDescription> = NETWORKS.iter().map(|name| described(name)).collect());
    let Some((&which, data)) = data.split_first() else { return };
    let Ok(file) = OnnxFile::parse(data.to_vec()) else { return };
    DESCRIPTIONS.with(|d| drop(network(&file, &d[usize::from(which) % NETWORKS.len()])));
}

/// The kept networks.
pub fn onnx_seeds() -> Vec<Vec<u8>> {
    NETWORKS.iter().enumerate().map(|(i, name)| [vec![i as u8], reference(name, "onnx")].concat()).collect()
}

/// The TOML file beside a teacher, and the one beside a network to be imported.
pub fn description(data: &[u8]) {
    thread_local!(static FOLDER: Scratch = Scratch::new(&[]));
    FOLDER.with(|folder| {
        let path = folder.write("description.toml", data);
        drop((TeacherDescription::read(&path), NetworkDescription::read(&path)));
    });
}

/// Those of the kept networks, and of a teacher.
pub fn description_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = NETWORKS.iter().map(|name| reference(name, "toml")).collect();
    let teacher = "family = 'yolo'\nsize = 64\noutputs = ['out']\nmean = [0, 0, 0]\nstd = [255, 255, 255]\n[classes]\ncar = [0, 2]\n";
    seeds.push(teacher.into());
    seeds
}
