//! A student package: a folder with `manifest.json` and a safetensors file.

use std::fs;
use std::path::{Path, PathBuf};

use half::f16;
use peregrine_core::files::{plain_file_within, read_at_most, sha256, write_atomically, FileError};
use peregrine_engine::cpu::int8::Int8Engine;
use peregrine_engine::cpu::CpuEngine;
use peregrine_engine::{ConvWeights, Engine, EngineError, Graph, Quantization, Weights};
use safetensors::tensor::{Dtype, SafeTensors};

use super::manifest::{Manifest, WeightsFile, CLUSTERED_FORMAT_VERSION, FORMAT_VERSION, QUANTIZED_FORMAT_VERSION};
use super::tensors::{self, to_f32};
use super::{clustered, quantized, Architecture};

/// Name of the manifest in its folder.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Name of the weights in their folder; a manifest may name another.
pub const WEIGHTS_FILE: &str = "weights.safetensors";

/// What the weights are called while a package takes the place of another.
const NEXT_WEIGHTS_FILE: &str = "next-weights.safetensors";

/// The most bytes of a manifest: an imported network of the most layers has a tenth.
const MAX_MANIFEST: u64 = 16 << 20;

static EMBEDDED_MANIFEST: &[u8] = include_bytes!("../../models/peregrine-s/manifest.json");
static EMBEDDED_WEIGHTS: &[u8] = include_bytes!("../../models/peregrine-s/weights.safetensors");
static TWIN_MANIFEST: &[u8] = include_bytes!("../../models/peregrine-s/int8/manifest.json");
static TWIN_WEIGHTS: &[u8] = include_bytes!("../../models/peregrine-s/int8/weights.safetensors");

/// Why a package could not be read or written. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path}: not a student manifest: {why}")]
    Manifest { path: PathBuf, why: String },
    #[error("{path}: SHA-256 is {found}, but the manifest says {expected}: the file is damaged or belongs to another manifest; copy both again")]
    Hash { path: PathBuf, found: String, expected: String },
    #[error("{path}: not usable as weights: {why}")]
    Weights { path: PathBuf, why: String },
    #[error("{path} {why}")]
    Twin { path: PathBuf, why: String },
}

/// A student in memory: its manifest and its checked weights.
#[derive(Debug, Clone)]
pub struct Student {
    pub manifest: Manifest,
    /// Of a quantized student the values that its 8-bit weights stand for.
    pub weights: Weights,
    /// Present exactly where the manifest has a quantization.
    pub quantization: Option<Quantization>,
}

impl Student {
    /// The default student, embedded in every program.
    pub fn embedded() -> Self {
        Self::built_in(EMBEDDED_MANIFEST, EMBEDDED_WEIGHTS)
    }

    /// The default student in 8 bits, its [twin](super::twin).
    pub(super) fn embedded_twin() -> Self {
        Self::built_in(TWIN_MANIFEST, TWIN_WEIGHTS)
    }

    fn built_in(manifest: &[u8], weights: &[u8]) -> Self {
        let at = Path::new("the embedded student");
        Self::parse(manifest, at, |_, _| Ok((weights.to_vec(), at.to_owned()))).expect("tests load what is embedded")
    }

    /// Reads the package in `folder`.
    ///
    /// # Errors
    /// When a file is missing, damaged, larger than its network can be, or does not fit the other.
    pub fn load(folder: &Path) -> Result<Self, PackageError> {
        Self::load_within(folder, None)
    }

    /// As [`load`](Self::load); with a `root`, only files that lie below it once all links are resolved.
    ///
    /// # Errors
    /// As [`load`](Self::load), and when a file lies outside `root`.
    pub fn load_within(folder: &Path, root: Option<&Path>) -> Result<Self, PackageError> {
        let read = |path: &Path, limit| read_at_most(&plain_file_within(path, root)?, limit);
        let path = folder.join(MANIFEST_FILE);
        let manifest = read(&path, MAX_MANIFEST)?;
        Self::parse(&manifest, &path, |file, limit| {
            let path = folder.join(file);
            Ok((read(&path, limit)?, path))
        })
    }

    /// The network for the manifest's input size.
    pub fn graph(&self) -> Graph {
        let input = &self.manifest.architecture.input;
        self.manifest.architecture.graph(input.width, input.height)
    }

    /// An engine on the CPU for `graph`, this student's network of some size, whole or cut: in
    /// integers where the student is quantized. `pinned`: with a CPU for each of its own threads.
    ///
    /// # Errors
    /// When the weights do not fit the graph, or the system pins no threads.
    pub fn cpu_engine(&self, graph: &Graph, threads: usize, pinned: bool) -> Result<Box<dyn Engine>, EngineError> {
        if let Some(quantization) = &self.quantization {
            let engine = Int8Engine::new(graph, &self.weights, quantization, threads)?;
            if pinned {
                engine.pin_helpers()?;
            }
            return Ok(Box::new(engine));
        }
        let engine = CpuEngine::new(graph, &self.weights, threads)?;
        if pinned {
            engine.pin_helpers()?;
        }
        Ok(Box::new(engine))
    }

    /// Writes the package into `folder`, each file under a temporary name that is then renamed.
    /// Whenever it is interrupted, the folder holds a whole package, this one or the one that was
    /// there before. Fills in the manifest's version, file name and hash. Weights are stored as
    /// f16, in 8 bits where they are quantized, or as codes of clusters.
    ///
    /// # Errors
    /// When `folder` cannot be written to, or the manifest has what no version of the format holds.
    pub fn save(&mut self, folder: &Path) -> Result<(), PackageError> {
        self.save_by(folder, write_atomically)
    }

    /// As [`save`](Self::save), each file by `write`.
    fn save_by(
        &mut self,
        folder: &Path,
        mut write: impl FnMut(&Path, &[u8]) -> Result<(), FileError>,
    ) -> Result<(), PackageError> {
        fs::create_dir_all(folder).map_err(|source| FileError::new(folder, source))?;
        let bytes = self.weights_file();
        let fault = |why| PackageError::Manifest { path: folder.join(MANIFEST_FILE), why };
        self.manifest.format_version = self.manifest.needed_version().map_err(fault)?;
        self.manifest.weights.sha256 = sha256(&bytes);
        // Weights that the manifest beside them describes must not change before it does, nor it
        // before them: the new ones first come under another name, which the new manifest gives
        // them until they have taken the old ones' place.
        let described =
            |weights: &WeightsFile| weights.file == WEIGHTS_FILE && weights.sha256 != self.manifest.weights.sha256;
        let takes_place = weights_of(folder).is_some_and(|weights| described(&weights));
        let names: &[&str] = if takes_place { &[NEXT_WEIGHTS_FILE, WEIGHTS_FILE] } else { &[WEIGHTS_FILE] };
        for &name in names {
            write(&folder.join(name), &bytes)?;
            self.manifest.weights.file = name.to_owned();
            let mut json = serde_json::to_vec_pretty(&self.manifest).expect("a manifest is plain data");
            json.push(b'\n');
            write(&folder.join(MANIFEST_FILE), &json)?;
        }
        // It is usually not there; one that stays does no harm.
        let _ = fs::remove_file(folder.join(NEXT_WEIGHTS_FILE));
        Ok(())
    }

    /// The bytes of the weights file.
    pub fn weights_file(&self) -> Vec<u8> {
        match (&self.quantization, self.manifest.weights.cluster_bits) {
            (Some(quantization), _) => quantized::serialize(&self.graph(), &self.weights, quantization),
            (None, Some(bits)) => clustered::serialize(&self.graph(), &self.weights, bits),
            (None, None) => serialize(&self.graph(), &self.weights, self.manifest.architecture.imported.is_some()),
        }
    }

    fn parse(
        manifest: &[u8],
        path: &Path,
        weights: impl FnOnce(&str, u64) -> Result<(Vec<u8>, PathBuf), PackageError>,
    ) -> Result<Self, PackageError> {
        let fault = |why: String| PackageError::Manifest { path: path.to_owned(), why };
        let manifest: Manifest = serde_json::from_slice(manifest).map_err(|e| fault(e.to_string()))?;
        let found = manifest.format_version;
        if ![FORMAT_VERSION, QUANTIZED_FORMAT_VERSION, CLUSTERED_FORMAT_VERSION].contains(&found) {
            let known = format!("{FORMAT_VERSION}, {QUANTIZED_FORMAT_VERSION} and {CLUSTERED_FORMAT_VERSION}");
            return Err(fault(format!("format_version is {found}; this program reads {known}")));
        }
        let needed = manifest.needed_version().map_err(fault)?;
        if needed != found {
            let has = match (found, needed) {
                (QUANTIZED_FORMAT_VERSION, _) => "lacks its quantization",
                (_, QUANTIZED_FORMAT_VERSION) => "has a quantization",
                (CLUSTERED_FORMAT_VERSION, _) => "lacks its weights.shared_bits",
                _ => "has weights.shared_bits",
            };
            return Err(fault(format!("format_version is {found}, but it {has}")));
        }
        manifest.architecture.check().map_err(fault)?;
        let file = &manifest.weights.file;
        if file.is_empty() || Path::new(file).file_name() != Some(file.as_ref()) {
            return Err(fault(format!("weights.file is {file:?}; it must be a plain file name")));
        }
        let Architecture { input, .. } = &manifest.architecture;
        let graph = manifest.architecture.graph(input.width, input.height);
        let (bytes, weights_path) = weights(file, max_weights_file(&graph))?;
        let found = sha256(&bytes);
        if found != manifest.weights.sha256 {
            let expected = manifest.weights.sha256;
            return Err(PackageError::Hash { path: weights_path, found, expected });
        }
        let weights_fault = |why: String| PackageError::Weights { path: weights_path.clone(), why };
        let (weights, quantization) = match (&manifest.quantization, manifest.weights.cluster_bits) {
            (Some(section), _) => {
                let (weights, quantization) = quantized::deserialize(&bytes, section).map_err(weights_fault)?;
                (weights, Some(quantization))
            }
            (None, Some(bits)) => (clustered::deserialize(&bytes, &graph, bits).map_err(weights_fault)?, None),
            (None, None) => (deserialize(&bytes).map_err(weights_fault)?, None),
        };
        let student = Self { manifest, weights, quantization };
        let engine_fault = |e: EngineError| weights_fault(e.to_string());
        if let Some(quantization) = &student.quantization {
            Int8Engine::check(&graph, quantization).map_err(engine_fault)?;
        }
        student.weights.check(&graph).map_err(engine_fault)?;
        Ok(student)
    }
}

/// The weights that the manifest in `folder` names, where there is a readable one.
fn weights_of(folder: &Path) -> Option<WeightsFile> {
    let manifest: Manifest =
        serde_json::from_slice(&read_at_most(&folder.join(MANIFEST_FILE), MAX_MANIFEST).ok()?).ok()?;
    Some(manifest.weights)
}

/// The most bytes of the weights file of `graph`: four for each value, and the header, which is larger
/// than the values where those are few.
fn max_weights_file(graph: &Graph) -> u64 {
    let values = |shape: [usize; 4]| shape.iter().product::<usize>() + 2 * shape[0];
    graph.convs().map(|(layer, _, shape)| 4 * values(shape) + 4 * layer.name.len() + 1024).sum::<usize>() as u64
        + (1 << 20)
}

/// Each convolution as `<layer>.weight` and `<layer>.bias`: in half precision, if `exact` only what
/// that holds unchanged.
fn serialize(graph: &Graph, weights: &Weights, exact: bool) -> Vec<u8> {
    let mut file = Vec::new();
    for (layer, _, shape) in graph.convs() {
        let conv = weights.of(&layer.name);
        for (part, shape, values) in [("weight", &shape[..], &conv.weight), ("bias", &shape[..1], &conv.bias)] {
            let halves = !exact || values.iter().all(|&v| f16::from_f32(v).to_f32() == v);
            let (dtype, bytes) = if halves {
                (Dtype::F16, tensors::f16_bytes(values))
            } else {
                (Dtype::F32, tensors::f32_bytes(values))
            };
            file.push((format!("{}.{part}", layer.name), dtype, shape.to_vec(), bytes));
        }
    }
    tensors::serialize(&file)
}

/// Reads weights: tensors `<layer>.weight` and `<layer>.bias`, F16 or F32.
///
/// # Errors
/// A sentence on what is wrong with the file.
pub fn deserialize(bytes: &[u8]) -> Result<Weights, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let mut weights = Weights::default();
    for (name, tensor) in file.tensors() {
        let values =
            to_f32(&tensor).ok_or_else(|| format!("{name} is {:?}; only F16 and F32 are read", tensor.dtype()))?;
        let (layer, part) = name.rsplit_once('.').ok_or_else(|| format!("tensor {name:?} names no layer"))?;
        let conv =
            weights.0.entry(layer.to_owned()).or_insert_with(|| ConvWeights { weight: Vec::new(), bias: Vec::new() });
        match part {
            "weight" => conv.weight = values,
            "bias" => conv.bias = values,
            _ => return Err(format!("tensor {name:?} is neither a weight nor a bias")),
        }
    }
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The embedded student with one weight changed by `by`.
    fn changed(by: f32) -> Student {
        let mut student = Student::load(&peregrine_support::lite()).unwrap();
        student.weights.0.get_mut("backbone.stem").unwrap().bias[0] += by;
        student
    }

    fn bias(folder: &Path) -> f32 {
        Student::load(folder).unwrap().weights.of("backbone.stem").bias[0]
    }

    #[test]
    fn a_package_is_replaced_whole_wherever_it_is_interrupted() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let before = Student::load(&peregrine_support::lite()).unwrap().weights.of("backbone.stem").bias[0];
        // The new weights under another name, the manifest, the weights in their place, the manifest.
        for (writes, is_new) in [(0, false), (1, false), (2, true), (3, true)] {
            Student::load(&peregrine_support::lite()).unwrap().save(folder).unwrap();
            let mut left = writes;
            let interrupted = changed(1.0).save_by(folder, |path, bytes| {
                if left == 0 {
                    return Err(FileError::new(path, std::io::ErrorKind::Interrupted.into()));
                }
                left -= 1;
                write_atomically(path, bytes)
            });
            assert!(interrupted.is_err(), "after {writes} writes");
            let expected = if is_new { before + 1.0 } else { before };
            assert!((bias(folder) - expected).abs() < 1e-2, "after {writes} writes: {}", bias(folder));
        }
        changed(3.0).save(folder).unwrap();
        assert!((bias(folder) - before - 3.0).abs() < 1e-2);
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [MANIFEST_FILE, WEIGHTS_FILE]);
    }
}
