//! The classes of a model, as what is published of its frames needs them.

use peregrine_student::Architecture;

/// Shared by all that publishes the frames of one model, and replaced with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelClasses {
    pub detection: Vec<String>,
    /// By the mask's class number.
    pub segmentation: Vec<String>,
    /// The groups of scenes, each with its classes.
    pub scene: Vec<(String, Vec<String>)>,
    /// For each class number of the mask, whether it is road; `None` if no class is.
    road: Option<Box<[bool; 256]>>,
}

impl ModelClasses {
    /// Those of `architecture`; `road` names the segmentation classes that are road, separated by
    /// commas.
    pub fn new(architecture: &Architecture, road: &str) -> Self {
        let segmentation = architecture.segmentation_classes().to_vec();
        let mut is_road = Box::new([false; 256]);
        for (flag, name) in is_road.iter_mut().zip(&segmentation) {
            *flag = names(road).any(|wanted| wanted == name);
        }
        let road = is_road.contains(&true).then_some(is_road);
        let scene = architecture.scene.iter().flat_map(|head| head.0.clone()).collect();
        Self { detection: architecture.detection_classes().to_vec(), segmentation, scene, road }
    }

    /// Whether any class of the mask is road.
    pub fn has_road(&self) -> bool {
        self.road.is_some()
    }

    /// Whether a class number of the mask is road.
    pub fn is_road(&self, class: u8) -> bool {
        self.road.as_ref().is_some_and(|road| road[usize::from(class)])
    }

    /// The first of `road`'s names that is no segmentation class.
    pub fn unknown<'a>(&self, road: &'a str) -> Option<&'a str> {
        names(road).find(|wanted| !self.segmentation.iter().any(|name| name == wanted))
    }
}

fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn road_is_what_the_parameter_names() {
        let student = Architecture::default_student();
        let of = |road| ModelClasses::new(&student, road);
        let roads = |road| (0..=255).filter(|&class| of(road).is_road(class)).collect::<Vec<u8>>();
        assert_eq!(roads("road"), [3]);
        assert_eq!(roads(" pavement, road "), [3, 4]);
        assert_eq!((roads("floor").len(), of("floor").has_road()), (0, false));
        assert_eq!(of("road").unknown("road, floor"), Some("floor"));
        assert_eq!(of("road").unknown(""), None);
    }
}
