//! `distill soften`: teachers look at every image once, and their soft targets go to disk.
//!
//! A folder of soft targets holds an `index.json` and shards in safetensors: for each image of a shard its objects' boxes
//! (f32) and temperature-free logits (f16). A shard counts once the index names it with its hash, so that a run that was
//! killed goes on with the first image that is missing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context};
use clap::Args;
use half::f16;
use image::RgbImage;
use indicatif::{ProgressBar, ProgressStyle};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::data::{load_image, Dataset, Sample};
use super::teacher::{ensemble, Description, PackageTeacher, Runtime, SoftBox, Teacher};
use crate::decode::BoundingBox;
use crate::student::package::{sha256, write_atomically};
use crate::student::Architecture;

const INDEX: &str = "index.json";
const IMAGES_PER_SHARD: usize = 128;

/// Let teachers look at images, and write their soft targets for `distill student`.
///
/// Example: distill soften --teacher models/teachers/nanodet_416.toml=nanodet_416.onnx --teacher models/peregrine-s --out soft
/// vehicles/train camvid/train
#[derive(Debug, Args)]
pub struct SoftenArgs {
    /// Data set folders, labelled or not.
    #[arg(required = true)]
    data: Vec<PathBuf>,
    /// A teacher as DESCRIPTION.toml=NETWORK.onnx, or the folder of a Peregrine package; several are averaged.
    #[arg(long = "teacher", required = true)]
    teachers: Vec<String>,
    /// Folder for the soft targets; an interrupted run goes on there.
    #[arg(long, short)]
    out: PathBuf,
    /// The libonnxruntime.so of an onnxruntime wheel; for teachers given as ONNX.
    #[arg(long, env = "ORT_DYLIB_PATH")]
    onnxruntime: Option<PathBuf>,
    /// Threads for each teacher.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Index {
    /// Names and hashes of the teachers.
    teachers: Vec<(String, String)>,
    classes: Vec<String>,
    shards: Vec<Shard>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Shard {
    file: String,
    sha256: String,
    dataset: String,
    images: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// Each names the file at fault; shards already written stay.
pub fn run(args: &SoftenArgs) -> anyhow::Result<()> {
    let classes = Architecture::default_student().detection.classes;
    let mut runtime = None;
    let mut teachers = Vec::new();
    for teacher in &args.teachers {
        teachers.push(match teacher.split_once('=') {
            Some((description, network)) => {
                let description = Description::read(Path::new(description))?;
                let library = args.onnxruntime.as_deref().unwrap_or(Path::new("libonnxruntime.so"));
                if runtime.is_none() {
                    runtime = Some(Runtime::open(library)?);
                }
                let runtime = runtime.as_ref().context("opened just above")?;
                AnyTeacher::Onnx(Teacher::load(runtime, Path::new(network), description, &classes, args.threads)?)
            }
            None if Path::new(teacher).is_dir() => {
                AnyTeacher::Package(PackageTeacher::load(Path::new(teacher), &classes, args.threads)?)
            }
            None => bail!("--teacher {teacher}: write DESCRIPTION.toml=NETWORK.onnx, or the folder of a package"),
        });
    }
    let identity: Vec<_> = teachers.iter().map(AnyTeacher::identity).collect();
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let mut index = Index { teachers: identity, classes, shards: Vec::new() };
    let path = args.out.join(INDEX);
    if path.exists() {
        let found = read_index(&path)?;
        ensure!(
            found.teachers == index.teachers && found.classes == index.classes,
            "{}: holds other teachers' soft targets; give another --out",
            args.out.display()
        );
        index = found;
    }

    let datasets = args.data.iter().map(|folder| Dataset::open(folder, None)).collect::<Result<Vec<_>, _>>()?;
    let total: usize = datasets.iter().map(|d| d.samples.len()).sum();
    let style = "{bar:30} {pos}/{len} images, {per_sec:.1}, ETA {eta} {msg}";
    let progress = ProgressBar::new(total as u64).with_style(ProgressStyle::with_template(style)?);
    for dataset in &datasets {
        progress.set_message(dataset.name.clone());
        for (number, samples) in dataset.samples.chunks(IMAGES_PER_SHARD).enumerate() {
            let images: Vec<String> = samples.iter().map(|s| s.file_name().to_owned()).collect();
            let done = index.shards.iter().any(|s| s.dataset == dataset.name && s.images == images);
            if !done {
                let file = format!("{}-{number:04}.safetensors", dataset.name.replace('/', "-"));
                let bytes = serialize(&look_at(samples, &mut teachers, &progress)?, index.classes.len());
                write_atomically(&args.out.join(&file), &bytes)?;
                index.shards.retain(|s| s.file != file);
                index.shards.push(Shard { file, sha256: sha256(&bytes), dataset: dataset.name.clone(), images });
                write_atomically(&path, &serde_json::to_vec_pretty(&index)?)?;
            } else {
                progress.inc(samples.len() as u64);
                progress.reset_eta();
            }
        }
    }
    progress.finish();
    Ok(())
}

/// A teacher of either kind.
enum AnyTeacher {
    Onnx(Teacher),
    Package(PackageTeacher),
}

impl AnyTeacher {
    /// Name and hash.
    fn identity(&self) -> (String, String) {
        match self {
            Self::Onnx(t) => (t.description.name.clone(), t.sha256.clone()),
            Self::Package(t) => (t.name.clone(), t.sha256.clone()),
        }
    }

    fn look(&mut self, image: &RgbImage) -> anyhow::Result<Vec<SoftBox>> {
        match self {
            Self::Onnx(t) => t.look(image),
            Self::Package(t) => t.look(image),
        }
    }
}

fn look_at(
    samples: &[Sample],
    teachers: &mut [AnyTeacher],
    progress: &ProgressBar,
) -> anyhow::Result<Vec<Vec<SoftBox>>> {
    let mut all = Vec::with_capacity(samples.len());
    for sample in samples {
        let image = load_image(&sample.image)?;
        let opinions = teachers.iter_mut().map(|t| t.look(&image)).collect::<anyhow::Result<Vec<_>>>()?;
        all.push(ensemble::fuse(&opinions));
        progress.inc(1);
    }
    Ok(all)
}

/// Soft targets in memory.
pub struct SoftTargets {
    by_image: HashMap<(String, String), Vec<SoftBox>>,
    /// Teachers' names.
    pub teachers: Vec<String>,
}

impl SoftTargets {
    /// Reads a folder that `distill soften` wrote.
    ///
    /// # Errors
    /// When a file is missing, or is not what the index says.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let index = read_index(&folder.join(INDEX))?;
        let mut by_image = HashMap::new();
        for shard in &index.shards {
            let path = folder.join(&shard.file);
            let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
            if sha256(&bytes) != shard.sha256 {
                bail!("{}: is not the file that index.json names; delete both and soften again", path.display());
            }
            let boxes = deserialize(&bytes, index.classes.len()).with_context(|| path.display().to_string())?;
            ensure!(boxes.len() == shard.images.len(), "{}: holds another number of images", path.display());
            let keys = shard.images.iter().map(|image| (shard.dataset.clone(), image.clone()));
            by_image.extend(keys.zip(boxes));
        }
        Ok(Self { by_image, teachers: index.teachers.into_iter().map(|t| t.0).collect() })
    }

    /// What the teachers saw in an image, best first; `None` where they were not asked.
    pub fn of(&self, dataset: &str, file: &str) -> Option<&[SoftBox]> {
        self.by_image.get(&(dataset.to_owned(), file.to_owned())).map(Vec::as_slice)
    }
}

fn read_index(path: &Path) -> anyhow::Result<Index> {
    let bytes = std::fs::read(path).with_context(|| format!("{}: no soft targets here", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{}: not an index of soft targets", path.display()))
}

fn serialize(images: &[Vec<SoftBox>], classes: usize) -> Vec<u8> {
    let (mut boxes, mut logits, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    let mut count = 0u32;
    for image in images {
        for object in image {
            let b = object.bbox;
            boxes.extend([b.x_min, b.y_min, b.x_max, b.y_max].iter().flat_map(|v| v.to_le_bytes()));
            logits.extend(object.logits.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()));
        }
        count += image.len() as u32;
        ends.extend(count.to_le_bytes());
    }
    let n = count as usize;
    let view = |dtype, shape, data| TensorView::new(dtype, shape, data).expect("lengths follow from the shape");
    let tensors = [
        ("boxes", view(Dtype::F32, vec![n, 4], &boxes)),
        ("logits", view(Dtype::F16, vec![n, classes], &logits)),
        ("ends", view(Dtype::U32, vec![images.len()], &ends)),
    ];
    safetensors::serialize(tensors, None).expect("names are unique")
}

fn deserialize(bytes: &[u8], classes: usize) -> anyhow::Result<Vec<Vec<SoftBox>>> {
    let file = SafeTensors::deserialize(bytes)?;
    let words = |name: &str| -> anyhow::Result<Vec<[u8; 4]>> {
        let tensor = file.tensor(name)?;
        Ok(tensor.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]).collect())
    };
    let boxes: Vec<f32> = words("boxes")?.into_iter().map(f32::from_le_bytes).collect();
    let ends: Vec<usize> = words("ends")?.into_iter().map(|b| u32::from_le_bytes(b) as usize).collect();
    let halves = file.tensor("logits")?;
    let logits: Vec<f32> = halves.data().chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect();
    let total = ends.last().copied().unwrap_or(0);
    ensure!(boxes.len() == 4 * total && logits.len() == classes * total, "its tensors do not belong together");
    ensure!(ends.is_sorted(), "its images' ends are out of order");
    let object =
        |(b, l): (&[f32], &[f32])| SoftBox { bbox: BoundingBox::new(b[0], b[1], b[2], b[3]), logits: l.to_vec() };
    let objects: Vec<SoftBox> = boxes.chunks_exact(4).zip(logits.chunks_exact(classes)).map(object).collect();
    let mut start = 0;
    Ok(ends.into_iter().map(|end| objects[std::mem::replace(&mut start, end)..end].to_vec()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_targets_survive_the_disk() {
        let object = |x: f32| SoftBox { bbox: BoundingBox::new(x, 1.0, x + 2.5, 9.0), logits: vec![0.5, -3.0] };
        let images = vec![vec![object(1.0), object(2.0)], vec![], vec![object(3.0)]];
        assert_eq!(deserialize(&serialize(&images, 2), 2).unwrap(), images);
    }

    #[test]
    fn a_damaged_shard_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = serialize(&[vec![]], 2);
        let shard = Shard {
            file: "a-0000.safetensors".into(),
            sha256: sha256(b"other"),
            dataset: "a".into(),
            images: vec!["x.jpg".into()],
        };
        let index = Index { teachers: vec![], classes: vec!["p".into(), "q".into()], shards: vec![shard] };
        std::fs::write(folder.path().join(INDEX), serde_json::to_vec(&index).unwrap()).unwrap();
        std::fs::write(folder.path().join("a-0000.safetensors"), bytes).unwrap();
        let error = SoftTargets::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("a-0000.safetensors"), "{error}");
    }
}
