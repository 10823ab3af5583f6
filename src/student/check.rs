//! Whether a description is possible: every range, before anything is built from it.

use std::collections::BTreeMap;

use peregrine_engine::{LayerId, Op};

use super::architecture::{Architecture, Input, MAX_STRIDE};
use super::classes::check_classes;
use super::imported::{ImportedNetwork, MAX_WEIGHTS};

impl Architecture {
    /// Checks every range; what passes can be [lowered](Self::graph) without a panic.
    ///
    /// # Errors
    /// A sentence naming the field at fault and what it may be.
    pub fn check(&self) -> Result<(), String> {
        let Input { width, height, mean, std } = &self.input;
        for (name, size) in [("input.width", *width), ("input.height", *height)] {
            if size == 0 || size % MAX_STRIDE != 0 || size > 4096 {
                return Err(format!("{name} is {size}; it must be a multiple of {MAX_STRIDE} up to 4096"));
            }
        }
        if !mean.iter().chain(std).all(|v| v.is_finite()) || std.iter().any(|&v| v <= 0.0) {
            return Err("input.mean and input.std must be finite, and std positive".into());
        }
        if let Some(network) = &self.imported {
            return self.check_imported(network);
        }
        let mut widths = vec![("backbone.stem", self.backbone.stem)];
        widths.extend(self.has_neck().then_some(("neck.channels", self.neck.channels)));
        widths.extend(self.segmentation.as_ref().map(|head| ("segmentation.channels", head.channels)));
        if let Some((name, n)) = widths.into_iter().find(|&(_, n)| n == 0 || n > 2048) {
            return Err(format!("{name} counts {n}; it must count 1 to 2048"));
        }
        if self.detection.is_none() && self.segmentation.is_none() && self.scene.is_none() {
            return Err("it has no head: neither detection nor segmentation nor scene; it needs one of them".into());
        }
        if let Some(head) = &self.scene {
            head.check("scene")?;
        }
        if let Some(head) = &self.segmentation {
            check_classes("segmentation.classes", &head.classes)?;
        }
        if let Some(head) = &self.detection {
            check_classes("detection.classes", &head.classes)?;
            if head.convs > 8 || !(2..=64).contains(&head.bins) {
                return Err("detection.convs must be 0 to 8 and detection.bins 2 to 64".into());
            }
        }
        let kernels = self.backbone.stages.iter().map(|s| s.kernel).chain(self.detection.iter().map(|d| d.kernel));
        if kernels.into_iter().any(|k| ![1, 3, 5, 7].contains(&k)) {
            return Err("every kernel must be 1, 3, 5 or 7".into());
        }
        self.backbone.check()?;
        self.check_widths()?;
        self.check_size()
    }

    /// That a few kilobytes of a manifest do not stand for gigabytes of weights.
    fn check_size(&self) -> Result<(), String> {
        let graph = self.own_graph(MAX_STRIDE, MAX_STRIDE);
        let weights = graph.convs().fold(0usize, |sum, (_, _, shape)| sum.saturating_add(shape.iter().product()));
        if weights > MAX_WEIGHTS {
            return Err(format!("the network has {weights} weights; at most {MAX_WEIGHTS} are possible"));
        }
        Ok(())
    }

    fn check_imported(&self, network: &ImportedNetwork) -> Result<(), String> {
        if !self.backbone.is_empty() || !self.neck.is_empty() || self.detection.is_some() {
            return Err("it has an imported network; backbone, neck and detection must be left out".into());
        }
        if let Some(head) = &self.scene {
            head.check("scene")?;
        }
        check_classes("imported.head.classes", &network.head.classes)?;
        if let Some(head) = &self.segmentation {
            check_classes("segmentation.classes", &head.classes)?;
            if !(1..=2048).contains(&head.channels) {
                return Err(format!("segmentation.channels counts {}; it must count 1 to 2048", head.channels));
            }
        }
        let full = Self { widths: BTreeMap::new(), ..self.clone() };
        let full = full.try_graph(self.input.width, self.input.height)?;
        for (name, &width) in &self.widths {
            let layer = full.layers.iter().position(|layer| layer.name == *name);
            let dense = |&id: &LayerId| matches!(full.layers[id].op, Op::Conv(conv) if !conv.depthwise);
            let layer = layer.filter(dense).filter(|id| !full.outputs.contains(id));
            let layer = layer.ok_or_else(|| {
                format!("widths.{name:?} does not name a dense convolution of this network that is no output")
            })?;
            let most = full.layers[layer].shape.channels;
            if !(1..=most).contains(&width) {
                return Err(format!("widths.{name:?} is {width}; it must be 1 to {most}"));
            }
        }
        self.try_graph(self.input.width, self.input.height).map(drop)
    }

    /// Checks that the pruned widths are those of layers, and that what is added stays of equal
    /// width.
    fn check_widths(&self) -> Result<(), String> {
        if self.widths.is_empty() {
            return Ok(());
        }
        let full = Self { widths: BTreeMap::new(), ..self.clone() }.graph(MAX_STRIDE, MAX_STRIDE);
        let mut known = 0;
        let mut found: Vec<usize> = Vec::with_capacity(full.layers.len());
        for (id, layer) in full.layers.iter().enumerate() {
            let from = |i: usize| found[layer.inputs[i]];
            let width = match layer.op {
                Op::Input => layer.shape.channels,
                Op::Conv(conv) if !conv.depthwise => match self.widths.get(&layer.name) {
                    Some(&width) if width == 0 || width > layer.shape.channels || full.outputs.contains(&id) => {
                        let most = layer.shape.channels;
                        return Err(format!(
                            "widths.{:?} is {width}; it must be 1 to {most}, of no output",
                            layer.name
                        ));
                    }
                    Some(&width) => {
                        known += 1;
                        width
                    }
                    None => layer.shape.channels,
                },
                Op::Add if from(0) != from(1) => {
                    return Err(format!("widths make {} add {} and {} channels", layer.name, from(0), from(1)));
                }
                Op::Add => from(0),
                Op::Concat => (0..layer.inputs.len()).map(from).sum(),
                // Depthwise convolutions, upsampling and pooling; no student has the rest.
                _ => from(0),
            };
            found.push(width);
        }
        match self
            .widths
            .keys()
            .find(|name| !full.convs().any(|(layer, conv, _)| layer.name == **name && !conv.depthwise))
        {
            Some(name) if known < self.widths.len() => {
                Err(format!("widths.{name:?} does not name a dense convolution of this network"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pruned_widths_must_name_layers_and_keep_sums_of_one_width() {
        let with = |widths: &[(&str, usize)]| {
            let mut architecture = Architecture::default_student();
            architecture.widths = widths.iter().map(|(name, width)| (name.to_string(), *width)).collect();
            architecture
        };
        let narrow = with(&[("backbone.1.0.expand", 48), ("backbone.1.0.project", 16), ("backbone.1.1.project", 16)]);
        narrow.check().unwrap();
        let full = Architecture::default_student().graph(64, 64);
        assert!(narrow.graph(64, 64).flops() < full.flops());
        assert_eq!(narrow.graph(64, 64).layers.len(), full.layers.len());
        for (widths, fault) in [
            (&[("backbone.1.1.project", 16)][..], "backbone.1.1.add"),
            (&[("backbone.9.9.project", 16)], "backbone.9.9.project"),
            (&[("backbone.1.0.expand", 0)], "backbone.1.0.expand"),
            (&[("detect.8.class", 2)], "detect.8.class"),
        ] {
            let error = with(widths).check().unwrap_err();
            assert!(error.contains(fault), "{error}");
        }
    }

    #[test]
    fn impossible_descriptions_are_refused_by_field() {
        let mut architecture = Architecture::default_student();
        architecture.input.width = 333;
        assert!(architecture.check().unwrap_err().contains("input.width"));
        let mut architecture = Architecture::default_student();
        architecture.backbone.stages[1].stride = 1;
        assert!(architecture.check().unwrap_err().contains("strides"));
    }
}
