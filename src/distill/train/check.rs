//! Checks of a training's configuration: ranges, and fields that need each other.

use anyhow::{bail, ensure, Context};

use super::config::StudentConfig;
use crate::data::Dataset;
use crate::loss::methods::MethodConfig;

/// Refuses a training in which nothing can be learnt: without a teacher, each data set must have
/// labels of the student's classes, and one of them an object or a mask.
///
/// # Errors
/// Names the data set, and why its labels are none.
pub(super) fn refuse_without_labels(config: &StudentConfig, datasets: &[Dataset]) -> anyhow::Result<()> {
    let of_package = config.teacher.as_ref().is_some_and(|t| t.package.is_some());
    refuse_unlabelled_scenes(config, datasets, of_package)?;
    if config.soft_targets.is_some() || of_package {
        return Ok(());
    }
    let sets = || config.data.iter().zip(datasets);
    let nothing = sets().find(|(source, set)| source.unlabelled || !set.is_labelled());
    let nothing = nothing.or_else(|| sets().next().filter(|_| !sets().any(|(_, set)| set.teaches())));
    let Some((source, set)) = nothing else { return Ok(()) };
    let why = match source.unlabelled {
        true => "it has unlabelled = true, and there is no teacher to learn from".into(),
        false => set.why_it_teaches_nothing(),
    };
    bail!(
        "{}: nothing can be learnt from it: {why}; correct its labels, or name soft_targets or a [teacher]",
        source.folder.display()
    )
}

/// Refuses a group of scenes that neither a label nor a teacher is about; warns of single classes.
fn refuse_unlabelled_scenes(config: &StudentConfig, datasets: &[Dataset], of_package: bool) -> anyhow::Result<()> {
    let head = datasets.first().and_then(Dataset::scenes);
    ensure!(head.is_some() || !config.scene_balance, "scene_balance is set, but the student has no scene head");
    let on_scenes = config.methods.iter().any(|method| method.method.learns_from_scenes());
    let taught = on_scenes && (of_package || config.soft_targets.is_some());
    let labelled = config.data.iter().zip(datasets).filter(|(source, _)| !source.unlabelled);
    let samples: Vec<_> = labelled.flat_map(|(_, set)| &set.samples).collect();
    for (at, (group, classes)) in head.iter().flat_map(|head| head.groups()).enumerate() {
        let is_labelled =
            |class: usize| samples.iter().any(|sample| sample.scene.classes.get(at) == Some(&Some(class)));
        let missing: Vec<&str> = (0..classes.len()).filter(|&c| !is_labelled(c)).map(|c| classes[c].as_str()).collect();
        ensure!(
            taught || missing.len() < classes.len(),
            "student.scene: no image has a label of the group {group} ({}); label some (scene.csv, folders by class, or \
             scene in dataset.toml), or add a [[method]] on = \"scene\" with a teacher of it",
            classes.join(", ")
        );
        if !taught && !missing.is_empty() {
            tracing::warn!("student.scene.{group}: no image is labelled as {}", missing.join(", "));
        }
    }
    Ok(())
}

impl StudentConfig {
    /// Checks all that needs no other file.
    ///
    /// # Errors
    /// Names the field.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.steps > 0 && self.batch > 0 && self.checkpoint_every > 0,
            "steps, batch and checkpoint_every must be at least 1"
        );
        ensure!(!self.data.is_empty(), "the configuration names no [[data]]");
        for source in &self.data {
            let fine = source.share > 0.0 && source.share.is_finite();
            ensure!(fine, "data share of {} must be above 0, and finite", source.folder.display());
        }
        self.check_ranges()?;
        self.methods.iter().try_for_each(|method| self.check_method(method))?;
        if let Some(teacher) = &self.teacher {
            let one = teacher.package.is_some() != teacher.average;
            ensure!(one, "[teacher] must name a package or have `average = true`, one of the two");
        }
        self.check_network()?;
        if self.frozen_stages > 0 && self.init.is_none() {
            bail!("frozen_stages is {}, but there is no init whose weights would be kept", self.frozen_stages);
        }
        for (only, key) in [(self.segmentation_only, "segmentation_only"), (self.scene_only, "scene_only")] {
            ensure!(
                !only || self.init.is_some(),
                "{key} is set, but there is no init whose other layers would be kept"
            );
        }
        Ok(())
    }

    /// Checks `[student]` as far as that needs no package.
    fn check_network(&self) -> anyhow::Result<()> {
        let of_package = self.quantized_as.is_some() || self.init.as_ref().is_some_and(|path| path.is_dir());
        if !of_package {
            self.named_architecture().map_err(anyhow::Error::msg)?;
        }
        Ok(())
    }

    fn check_method(&self, method: &MethodConfig) -> anyhow::Result<()> {
        let at = || format!("[[method]] kind = {:?}", method.method.name());
        method.check().map_err(anyhow::Error::msg).with_context(at)?;
        if let Some(teacher) = &self.teacher {
            let needs_package = method.method.needs_package();
            ensure!(!(teacher.average && needs_package), "{} needs a [teacher] with a package, not the average", at());
            return Ok(());
        }
        let layers = method.method.learns_from_features();
        let scenes = method.method.learns_from_scenes();
        ensure!(method.method.learns_from_masks() || scenes || !layers.is_empty(), "{} needs a [teacher]", at());
        let what = if scenes {
            "of a classifier"
        } else if layers.is_empty() {
            "of a segmenter"
        } else {
            "with features"
        };
        ensure!(self.soft_targets.is_some(), "{} needs a [teacher], or soft_targets {what}", at());
        ensure!(
            layers.is_empty() || self.augment.mixup == 0.0,
            "{} needs a [teacher] if augment.mixup is above 0: soft_targets hold no features of blended images",
            at()
        );
        Ok(())
    }

    /// Every comparison is written so that NaN fails it.
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
            ("scene_weight", self.scene_weight),
            ("loss.box_weight", loss.box_weight),
            ("loss.side_weight", loss.box_distribution_weight),
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
            ("segmentation_only = true", "segmentation_only is set, but there is no init"),
            ("scene_only = true", "scene_only is set, but there is no init"),
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
}
