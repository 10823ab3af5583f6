//! What a student's training is given: the TOML file that a run is started from and that its folder keeps.

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context};
use peregrine_student::presets::Preset;
use peregrine_student::{Architecture, Student};
use serde::{Deserialize, Serialize};

use super::augment::AugmentConfig;
use super::online::TeacherConfig;
use super::optimizer::Rule;
use crate::data::{tell_left_out, DataError, Dataset, OnError, OpenOptions};
use crate::loss::detection::DetectionLossConfig;
use crate::loss::methods::MethodConfig;

/// Everything that `distill student` and `distill teacher` need to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StudentConfig {
    /// Name of the package that is written.
    pub name: String,
    pub seed: u64,
    /// Width and height in pixels that the student is trained for and that its manifest names; multiples of 32. Without
    /// it: the default student's 320×256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<[usize; 2]>,
    /// A larger backbone than the default student's, with wider heads: for a teacher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backbone: Option<Preset>,
    /// Optimizer steps.
    pub steps: u64,
    /// Images a step.
    pub batch: usize,
    /// Peak learning rate, after `warmup` steps; it then falls along a cosine to a hundredth.
    pub learning_rate: f64,
    pub warmup: u64,
    /// Factor on the learning rate of layers that start from `init`.
    pub backbone_rate: f32,
    pub weight_decay: f64,
    #[serde(skip_serializing_if = "is_default")]
    pub optimizer: Rule,
    /// Of the optimizer `sgd`, 0 or above, and below 1.
    #[serde(skip_serializing_if = "is_usual_momentum")]
    pub momentum: f64,
    /// Largest norm of the gradient.
    pub clip: f32,
    /// Decay of the weights' exponential moving average, which is what is exported.
    pub ema: f64,
    /// Weights to start from: a student package's folder, a safetensors file (a ResNet's by torchvision's names, too),
    /// or an EfficientNet-Lite or ResNet classifier in ONNX.
    pub init: Option<PathBuf>,
    /// Stages of the backbone, counted from the stem, that keep the weights of `init`.
    pub frozen_stages: usize,
    /// A package that `distill quantize` wrote: the student trains as its integer engine computes, on its scales, and is
    /// written in 8 bits (quantization-aware distillation). `init` is then the package that it was made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantized_as: Option<PathBuf>,
    /// Folder written by `distill soften`; without it the student learns from labels alone.
    pub soft_targets: Option<PathBuf>,
    /// Objects that only the teacher saw are learnt from this score on, 0 to 1.
    pub pseudo_label_score: f32,
    /// Weight of the segmentation loss.
    pub segmentation_weight: f64,
    pub loss: DetectionLossConfig,
    /// A teacher that sees each view; `[[method]]` tables say what the student takes from it. Without it, `kd` on the
    /// segmentation head and `cwd` take the masks of `soft_targets`, and methods that compare inner layers (`hint`,
    /// `attention`, `rkd`, `pkd`, `fgd`, `cwd` with `layers`) its features. Those were made of whole images: the nearer to 1
    /// `augment.scale` is, the more they are what the teacher would make of the view.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<TeacherConfig>,
    #[serde(rename = "method", skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<MethodConfig>,
    pub augment: AugmentConfig,
    pub data: Vec<DataSource>,
    /// Leave out images that cannot be used, and say how many, instead of stopping.
    #[serde(skip_serializing_if = "is_default")]
    pub skip_bad: bool,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Credits to write into the package.
    pub notice: Vec<String>,
}

/// A data set and its share of each batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSource {
    pub folder: PathBuf,
    /// Relative to the other sets' shares.
    pub share: f64,
    /// The `dataset.toml` to use instead of the one found.
    #[serde(default)]
    pub config: Option<PathBuf>,
    /// Leave the labels aside, so that the student has the teachers alone to learn from.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unlabelled: bool,
}

// Keys that a run did not have when it was begun are left out of its `config.toml` while they change nothing, so that its
// checkpoint still belongs to it.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

const MOMENTUM: f64 = 0.9;

fn is_usual_momentum(value: &f64) -> bool {
    *value == MOMENTUM
}

impl Default for StudentConfig {
    fn default() -> Self {
        Self {
            name: "student".into(),
            seed: 1,
            input: None,
            backbone: None,
            steps: 3000,
            batch: 16,
            learning_rate: 1e-3,
            warmup: 200,
            backbone_rate: 0.2,
            weight_decay: 0.02,
            optimizer: Rule::default(),
            momentum: MOMENTUM,
            clip: 10.0,
            ema: 0.998,
            init: None,
            frozen_stages: 0,
            quantized_as: None,
            soft_targets: None,
            pseudo_label_score: 0.3,
            segmentation_weight: 1.0,
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
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// As [`read`](Self::read), from the text.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = toml::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.steps > 0 && self.batch > 0 && self.checkpoint_every > 0,
            "steps, batch and checkpoint_every must be at least 1"
        );
        ensure!(!self.data.is_empty(), "the configuration names no [[data]]");
        for source in &self.data {
            let fine = source.share > 0.0 && source.share.is_finite();
            ensure!(fine, "data share of {} must be above 0, and a number", source.folder.display());
        }
        self.check_ranges()?;
        for method in &self.methods {
            let at = || format!("[[method]] kind = {:?}", method.method.name());
            method.check().map_err(anyhow::Error::msg).with_context(at)?;
            let Some(teacher) = &self.teacher else {
                let layers = method.method.learns_from_features();
                ensure!(method.method.learns_from_masks() || !layers.is_empty(), "{} needs a [teacher]", at());
                let what = if layers.is_empty() { "of a segmenter" } else { "with features" };
                ensure!(self.soft_targets.is_some(), "{} needs a [teacher], or soft_targets {what}", at());
                ensure!(
                    layers.is_empty() || self.augment.mixup == 0.0,
                    "{} needs a [teacher] where augment.mixup is above 0: soft_targets hold no features of blended images",
                    at()
                );
                continue;
            };
            let needs_package = method.method.needs_package();
            ensure!(!(teacher.average && needs_package), "{} needs a [teacher] with a package, not the average", at());
        }
        if let Some(teacher) = &self.teacher {
            let one = teacher.package.is_some() != teacher.average;
            ensure!(one, "[teacher] is to name a package, or to have `average = true`: one of the two");
        }
        self.architecture().check().map_err(anyhow::Error::msg)?;
        if let (Some(_), Some(init)) = (self.backbone, self.init.as_deref().filter(|path| path.is_dir())) {
            bail!("init is {}, a package, which has its backbone already: leave backbone out", init.display());
        }
        if self.frozen_stages > 0 && self.init.is_none() {
            bail!("frozen_stages is {}, but there is no init whose weights could be kept", self.frozen_stages);
        }
        Ok(())
    }

    /// Every comparison is written so that what is no number fails it.
    fn check_ranges(&self) -> anyhow::Result<()> {
        let (loss, augment) = (&self.loss, &self.augment);
        let above_zero = [
            ("learning_rate", self.learning_rate),
            ("clip", f64::from(self.clip)),
            ("loss.temperature", loss.temperature),
        ];
        for (name, v) in above_zero {
            ensure!(v > 0.0, "{name} is {v}; it must be above 0");
        }
        ensure!(self.learning_rate < 1.0, "learning_rate is {}; it must be below 1", self.learning_rate);
        let not_negative = [
            ("backbone_rate", f64::from(self.backbone_rate)),
            ("weight_decay", self.weight_decay),
            ("segmentation_weight", self.segmentation_weight),
            ("loss.box_weight", loss.box_weight),
            ("loss.side_weight", loss.side_weight),
        ];
        for (name, v) in not_negative {
            ensure!(v >= 0.0 && v.is_finite(), "{name} is {v}; it must be 0 or above");
        }
        let shares = [
            ("loss.alpha", loss.alpha),
            ("pseudo_label_score", f64::from(self.pseudo_label_score)),
            ("augment.colour", f64::from(augment.colour)),
            ("augment.min_visible", f64::from(augment.min_visible)),
            ("augment.mosaic", augment.mosaic),
            ("augment.mixup", augment.mixup),
            ("augment.flip", augment.flip),
        ];
        for (name, v) in shares {
            ensure!((0.0..=1.0).contains(&v), "{name} is {v}; it must be 0 to 1");
        }
        let below_one =
            [("momentum", self.momentum), ("ema", self.ema), ("loss.label_smoothing", loss.label_smoothing)];
        for (name, v) in below_one {
            ensure!((0.0..1.0).contains(&v), "{name} is {v}; it must be 0 or above, and below 1");
        }
        let [low, high] = augment.scale;
        ensure!(0.0 < low && low <= high && high.is_finite(), "augment.scale must be [low, high] with 0 < low <= high");
        ensure!(augment.aspect >= 1.0 && augment.aspect.is_finite(), "augment.aspect must be at least 1");
        Ok(())
    }

    /// Whether a method takes the masks of the soft targets for its teacher.
    pub fn takes_masks(&self) -> bool {
        self.teacher.is_none() && self.methods.iter().any(|method| method.method.learns_from_masks())
    }

    /// Whether a method takes the soft targets' features of `layer` for its teacher.
    pub fn takes_feature(&self, layer: &str) -> bool {
        let takes = |method: &MethodConfig| method.method.learns_from_features().iter().any(|name| name == layer);
        self.teacher.is_none() && self.methods.iter().any(takes)
    }

    /// Opens the data sets, in their order, for the classes of the network that is trained.
    ///
    /// # Errors
    /// When a folder cannot be used, or a file of it, unless those are to be skipped.
    pub fn open_data(&self, architecture: &Architecture) -> Result<Vec<Dataset>, DataError> {
        let open = |source: &DataSource| {
            let options = OpenOptions {
                config: source.config.clone(),
                description: None,
                classes: architecture.detection.classes.clone(),
                segmentation: architecture.segmentation.classes.clone(),
                on_error: if self.skip_bad { OnError::Skip } else { OnError::Stop },
            };
            let dataset = Dataset::open_with(&source.folder, &options)?;
            tell_left_out(&dataset.skipped);
            Ok(dataset)
        };
        self.data.iter().map(open).collect()
    }

    /// The network that is to be trained, at this configuration's input size: that of `init` where it is a package, with the
    /// widths that pruning left; that of `quantized_as`; else that of `backbone`; else the default student.
    pub fn architecture(&self) -> Architecture {
        // A package that cannot be read is named where its weights are.
        let package = self.init.as_deref().filter(|path| path.is_dir()).or(self.quantized_as.as_deref());
        let package = package.and_then(|path| Student::load(path).ok());
        let mut architecture = match (package, self.backbone) {
            (Some(package), _) => package.manifest.architecture,
            (None, Some(backbone)) => backbone.teacher(),
            (None, None) => Architecture::default_student(),
        };
        if let Some([width, height]) = self.input {
            (architecture.input.width, architecture.input.height) = (width, height);
        }
        architecture
    }

    /// The learning rate of a step: linear warm-up, then half a cosine down to a hundredth of the peak.
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

    fn parsed(keys: &str) -> Result<StudentConfig, String> {
        let data = "\n[[data]]\nfolder = 'd'\nshare = 1.0\n";
        // Keys of the whole come before the first table.
        let (top, tables) = keys.find('[').filter(|&at| at == 0).map_or((keys, ""), |_| ("", keys));
        StudentConfig::parse(&format!("{top}{data}{tables}")).map_err(|e| format!("{e:#}"))
    }

    #[test]
    fn a_value_out_of_range_is_refused_by_its_key() {
        for (keys, named) in [
            ("clip = 0.0", "clip"),
            ("clip = nan", "clip"),
            ("weight_decay = -0.1", "weight_decay"),
            ("weight_decay = nan", "weight_decay"),
            ("learning_rate = nan", "learning_rate"),
            ("ema = nan", "ema"),
            ("backbone_rate = -1.0", "backbone_rate"),
            ("segmentation_weight = inf", "segmentation_weight"),
            ("[loss]\nbox_weight = -1.0", "loss.box_weight"),
            ("[augment]\nmin_visible = 1.5", "augment.min_visible"),
            ("[augment]\ncolour = 2.0", "augment.colour"),
            ("[augment]\nscale = [0.5, inf]", "augment.scale"),
            ("[augment]\naspect = nan", "augment.aspect"),
            ("[[data]]\nfolder = 'e'\nshare = inf", "data share of e"),
            ("[[method]]\nkind = 'kd'\non = 'segmentation'", "soft_targets of a segmenter"),
            ("[[method]]\nkind = 'kd'\non = 'class'", "needs a [teacher]"),
            ("[[method]]\nkind = 'hint'", "soft_targets with features"),
            ("[[method]]\nkind = 'cwd'\nlayers = ['neck.32']", "soft_targets with features"),
        ] {
            let error = parsed(keys).unwrap_err();
            assert!(error.contains(named), "{keys}: {error}");
        }
        parsed("clip = inf").unwrap();
        let blended = "[augment]\nmixup = 0.5\n[[method]]\nkind = 'hint'";
        let error =
            StudentConfig::parse(&format!("soft_targets = 's'\n[[data]]\nfolder = 'd'\nshare = 1.0\n{blended}"));
        assert!(error.unwrap_err().to_string().contains("augment.mixup"));
    }

    #[test]
    fn what_is_written_back_of_a_configuration_without_new_keys_has_none() {
        let text = toml::to_string(&parsed("").unwrap()).unwrap();
        assert!(!text.contains("skip_bad"), "{text}");
    }

    #[test]
    fn the_rate_warms_up_linearly_and_falls_along_half_a_cosine_to_a_hundredth() {
        let config = StudentConfig { steps: 110, warmup: 10, learning_rate: 0.1, ..StudentConfig::default() };
        let cosine = |share: f64| 0.001 + 0.099 * (std::f64::consts::FRAC_PI_2 * share).cos().powi(2);
        for (step, expected) in
            [(0, 0.01), (4, 0.05), (9, 0.1), (10, 0.1), (35, cosine(0.25)), (60, 0.0505), (110, 0.001)]
        {
            assert!((config.rate_at(step) - expected).abs() < 1e-12, "{step}: {}", config.rate_at(step));
        }
    }
}
