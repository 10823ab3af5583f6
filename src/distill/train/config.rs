//! The configuration of a training: the TOML file that a run is started with and that its folder
//! keeps.

use std::path::{Path, PathBuf};

use anyhow::{bail, Context};
use peregrine_core::files::{read_text_at_most, MAX_DESCRIPTION};
use peregrine_student::presets::Preset;
use peregrine_student::{Architecture, Student, StudentShape};
use serde::{Deserialize, Serialize};

use super::augment::AugmentConfig;
use super::online::TeacherConfig;
use super::optimizer::OptimizerKind;
use crate::data::{log_skipped, DataError, Dataset, OnError, OpenOptions};
use crate::defaults::is_default;
use crate::loss::detection::DetectionLossConfig;
use crate::loss::methods::MethodConfig;

/// The configuration of `distill student` and `distill teacher`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StudentConfig {
    /// Name of the package that is written.
    pub name: String,
    pub seed: u64,
    /// Repeated runs on one device, with as many ranks, end with equal weights, whatever the number of
    /// threads. The CPU and CUDA always do; a device that did not would be refused.
    #[serde(skip_serializing_if = "is_default")]
    pub deterministic: bool,
    /// Width and height of the network's input in pixels, multiples of 32, as its manifest names
    /// them. Default: the default student's 320×256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<[usize; 2]>,
    /// The student's own classes, size and input; without this table it is the default student,
    /// or the package that is `init`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub student: Option<StudentShape>,
    /// A larger backbone than the default student's, with wider heads, for a teacher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backbone: Option<Preset>,
    /// Optimizer steps.
    pub steps: u64,
    /// Images in a batch, of all ranks together.
    pub batch: usize,
    /// Where several ranks have parts of a batch: batch-norm is over the whole of it, as in one process;
    /// else each rank's is over its part, and their running statistics are averaged.
    #[serde(skip_serializing_if = "is_true")]
    pub sync_batch_norm: bool,
    /// Peak learning rate, reached after `warmup` steps; it then decays along a cosine to a
    /// hundredth.
    pub learning_rate: f64,
    pub warmup: u64,
    /// Factor on the learning rate of the layers that are initialised from `init`.
    pub backbone_rate: f32,
    pub weight_decay: f64,
    #[serde(skip_serializing_if = "is_default")]
    pub optimizer: OptimizerKind,
    /// Momentum of the optimizer `sgd`, 0 or above, and below 1.
    #[serde(skip_serializing_if = "is_default_momentum")]
    pub momentum: f64,
    /// Gradients with a larger global norm are scaled down to this norm.
    pub clip: f32,
    /// Decay of the weights' exponential moving average, which is written to the package.
    pub ema: f64,
    /// Initial weights: a student package's folder, a safetensors file (also a ResNet's by
    /// torchvision's names), or an EfficientNet-Lite or ResNet classifier in ONNX.
    pub init: Option<PathBuf>,
    /// The number of backbone stages, counted from the stem, that keep the weights of `init`.
    pub frozen_stages: usize,
    /// Only the segmentation head learns; all else keeps the weights of `init`, so that what is detected
    /// stays exactly what it was.
    #[serde(skip_serializing_if = "is_default")]
    pub segmentation_only: bool,
    /// The same for the scene head; with both, both learn.
    #[serde(skip_serializing_if = "is_default")]
    pub scene_only: bool,
    /// A package written by `distill quantize`, for quantization-aware distillation: the student is
    /// trained as the integer engine computes, on this package's scales, and is written in 8 bits.
    /// `init` is then the package that it was made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantized_as: Option<PathBuf>,
    /// Folder written by `distill soften`; without it the student learns from labels only.
    pub soft_targets: Option<PathBuf>,
    /// Soft targets without a label are used from this score on, 0 to 1.
    pub pseudo_label_score: f32,
    /// Weight of the segmentation loss.
    pub segmentation_weight: f64,
    /// Weight of the scene loss.
    #[serde(skip_serializing_if = "is_one")]
    pub scene_weight: f64,
    /// Images are drawn so that, within each data set, the classes of scenes come equally often.
    #[serde(skip_serializing_if = "is_default")]
    pub scene_balance: bool,
    pub loss: DetectionLossConfig,
    /// A teacher that is run on each augmented view; `[[method]]` tables say what the student
    /// learns from it. Without it, `kd` on the segmentation head and `cwd` use the masks of
    /// `soft_targets`, and the methods that compare inner layers (`hint`, `attention`, `rkd`,
    /// `pkd`, `fgd`, `cwd` with `layers`) its features. Those were made of whole images: the nearer
    /// `augment.scale` is to 1, the closer they are to the teacher's outputs for the view.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<TeacherConfig>,
    #[serde(rename = "method", skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<MethodConfig>,
    pub augment: AugmentConfig,
    pub data: Vec<DataSource>,
    /// Skip images that cannot be used, and report them, instead of stopping.
    #[serde(skip_serializing_if = "is_default")]
    pub skip_bad: bool,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Credits that are written into the package.
    pub notice: Vec<String>,
}

/// A data set and its sampling weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSource {
    pub folder: PathBuf,
    /// Relative to the shares of the other sets.
    pub share: f64,
    /// A `dataset.toml` to use instead of the one in the folder, or `builtin:NAME`.
    #[serde(default)]
    pub config: Option<PathBuf>,
    /// Ignore the labels, so that the student learns from the teachers only.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unlabelled: bool,
}

const MOMENTUM: f64 = 0.9;

fn is_default_momentum(value: &f64) -> bool {
    *value == MOMENTUM
}

fn is_true(value: &bool) -> bool {
    *value
}

fn is_one(value: &f64) -> bool {
    *value == 1.0
}

impl Default for StudentConfig {
    fn default() -> Self {
        Self {
            name: "student".into(),
            seed: 1,
            deterministic: false,
            input: None,
            student: None,
            backbone: None,
            steps: 3000,
            batch: 16,
            sync_batch_norm: true,
            learning_rate: 1e-3,
            warmup: 200,
            backbone_rate: 0.2,
            weight_decay: 0.02,
            optimizer: OptimizerKind::default(),
            momentum: MOMENTUM,
            clip: 10.0,
            ema: 0.998,
            init: None,
            frozen_stages: 0,
            segmentation_only: false,
            scene_only: false,
            quantized_as: None,
            soft_targets: None,
            pseudo_label_score: 0.3,
            segmentation_weight: 1.0,
            scene_weight: 1.0,
            scene_balance: false,
            loss: DetectionLossConfig::default(),
            teacher: None,
            methods: Vec::new(),
            augment: AugmentConfig::default(),
            data: Vec::new(),
            skip_bad: false,
            checkpoint_every: 100,
            notice: Vec::new(),
        }
    }
}

impl StudentConfig {
    /// Reads and checks a TOML file.
    ///
    /// # Errors
    /// Names the file, and the field at fault.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = read_text_at_most(path, MAX_DESCRIPTION)?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// As [`read`](Self::read), from text.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = toml::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    /// The most images that a batch shows: a mosaic has four, and one may be blended in.
    pub fn images_of_step(&self) -> usize {
        let AugmentConfig { mosaic, mixup, .. } = self.augment;
        self.batch * (if mosaic > 0.0 { 4 } else { 1 } + usize::from(mixup > 0.0))
    }

    /// Whether a method uses the masks of the soft targets as its teacher's.
    pub fn takes_masks(&self) -> bool {
        self.teacher.is_none() && self.methods.iter().any(|method| method.method.learns_from_masks())
    }

    /// Whether a method uses the scenes of the soft targets as its teacher's.
    pub fn takes_scenes(&self) -> bool {
        self.teacher.is_none() && self.methods.iter().any(|method| method.method.learns_from_scenes())
    }

    /// Whether a method uses the soft targets' features of `layer` as its teacher's.
    pub fn takes_feature(&self, layer: &str) -> bool {
        let takes = |method: &MethodConfig| method.method.learns_from_features().iter().any(|name| name == layer);
        self.teacher.is_none() && self.methods.iter().any(takes)
    }

    /// Opens the data sets, in their order, for the classes of the network that is trained.
    ///
    /// # Errors
    /// When a folder or, without `skip_bad`, one of its files cannot be used.
    pub fn open_data(&self, architecture: &Architecture) -> Result<Vec<Dataset>, DataError> {
        let open = |source: &DataSource| {
            let options = OpenOptions {
                config_path: source.config.clone(),
                on_error: if self.skip_bad { OnError::Skip } else { OnError::Stop },
                ..OpenOptions::of(architecture)
            };
            let dataset = Dataset::open_with(&source.folder, &options)?;
            log_skipped(&dataset.skipped);
            Ok(dataset)
        };
        self.data.iter().map(open).collect()
    }

    /// The network that is to be trained, at this configuration's input size: that of `init` if it
    /// is a package, with the widths that pruning left; else that of `quantized_as`; else that of
    /// `backbone`; else the default student. `[student]` gives its classes and size. Reads the
    /// package's folder.
    ///
    /// # Errors
    /// When the package cannot be read or does not go with the other fields; names the field.
    pub fn load_architecture(&self) -> anyhow::Result<Architecture> {
        let init = self.init.as_deref().filter(|path| path.is_dir());
        if let (Some(_), Some(init)) = (self.backbone, init) {
            bail!("init is {}, a package, which has its backbone already: leave backbone out", init.display());
        }
        let package =
            init.map(|path| ("init", path)).or(self.quantized_as.as_deref().map(|path| ("quantized_as", path)));
        let Some((field, path)) = package else { return self.named_architecture().map_err(anyhow::Error::msg) };
        let package = Student::load(path).with_context(|| format!("{field} = {:?}", path.display()))?;
        let made = self.shape().and_then(|shape| shape.of_package(package.manifest.architecture));
        made.map_err(anyhow::Error::msg)
    }

    /// The network if neither `init` nor `quantized_as` is a package.
    ///
    /// # Errors
    /// Names the key at fault.
    pub(super) fn named_architecture(&self) -> Result<Architecture, String> {
        self.shape()?.architecture(self.backbone)
    }

    /// `[student]` with the input size, which may stand outside the table.
    fn shape(&self) -> Result<StudentShape, String> {
        let mut shape = self.student.clone().unwrap_or_default();
        if let Some(input) = self.input {
            if shape.input.replace(input).is_some() {
                return Err("input and student.input both give the size; leave one out".into());
            }
        }
        Ok(shape)
    }

    /// The learning rate of a step: linear warm-up, then half a cosine down to a hundredth of the
    /// peak (Loshchilov & Hutter 2017, eq. 5, without restarts).
    pub fn rate_at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.learning_rate * (step + 1) as f64 / self.warmup as f64;
        }
        let done = (step - self.warmup) as f64 / (self.steps - self.warmup).max(1) as f64;
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
        self.learning_rate * (0.01 + 0.99 * cosine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_keys_are_not_written_while_they_have_their_default() {
        let text = toml::to_string(&StudentConfig::default()).unwrap();
        assert!(!text.contains("skip_bad"), "{text}");
    }

    #[test]
    fn a_package_that_cannot_be_read_is_named_with_its_field() {
        let folder = tempfile::tempdir().unwrap();
        let path = Some(folder.path().to_owned());
        let init = StudentConfig { init: path.clone(), ..StudentConfig::default() };
        let quantized = StudentConfig { quantized_as: path, ..StudentConfig::default() };
        for (config, field) in [(init, "init = "), (quantized, "quantized_as = ")] {
            let error = format!("{:#}", config.load_architecture().unwrap_err());
            assert!(error.contains(field) && error.contains(folder.path().to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn the_architecture_is_that_of_the_package_at_the_input_size() {
        let folder = tempfile::tempdir().unwrap();
        let mut student = Student::load(&peregrine_support::lite()).unwrap();
        student.manifest.architecture.detection.as_mut().unwrap().classes[0] = "tree".into();
        student.save(folder.path()).unwrap();
        let init = Some(folder.path().to_owned());
        let config = StudentConfig { init, input: Some([64, 96]), ..StudentConfig::default() };
        let found = config.load_architecture().unwrap();
        assert_eq!((found.input.width, found.input.height), (64, 96));
        assert_eq!(found.detection, student.manifest.architecture.detection);
        let both = StudentConfig { backbone: Some(Preset::Lite0), ..config };
        assert!(both.load_architecture().unwrap_err().to_string().contains("backbone"));
    }

    #[test]
    fn the_rate_warms_up_linearly_and_decays_along_a_cosine() {
        let config = StudentConfig { steps: 110, warmup: 10, learning_rate: 0.1, ..StudentConfig::default() };
        let cosine = |share: f64| 0.001 + 0.099 * (std::f64::consts::FRAC_PI_2 * share).cos().powi(2);
        for (step, expected) in
            [(0, 0.01), (4, 0.05), (9, 0.1), (10, 0.1), (35, cosine(0.25)), (60, 0.0505), (110, 0.001)]
        {
            assert!((config.rate_at(step) - expected).abs() < 1e-12, "{step}: {}", config.rate_at(step));
        }
    }
}
