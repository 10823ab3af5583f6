//! Whole steps of a training with every loss and every distillation method, beside the CPU.

use std::sync::Arc;

use peregrine_core::BoundingBox;
use peregrine_engine::cuda::Driver;
use peregrine_reference::cuda::Emulated;
use peregrine_student::Architecture;

use super::kernels::Precision;
use crate::net::{check, NetParams, TrainNet};
use crate::train::batches::Batch;
use crate::train::checkpoint::TrainState;
use crate::train::config::StudentConfig;
use crate::train::device::OpenDevice;
use crate::train::distillation::{Distillation, TeacherSource};
use crate::train::objects::Object;
use crate::train::step::{LossComputer, Losses};

/// All that need no package.
const METHODS: [&str; 11] = [
    "kind = 'kd'\non = 'class'",
    "kind = 'kd'\non = 'segmentation'",
    "kind = 'dkd'\non = 'class'",
    "kind = 'dist'\non = 'segmentation'",
    "kind = 'hint'",
    "kind = 'attention'",
    "kind = 'rkd'",
    "kind = 'ld'",
    "kind = 'pkd'",
    "kind = 'fgd'",
    "kind = 'cwd'",
];

/// Losses of some steps of two images with objects, of which one has a mask: with every method, and the
/// `teacher` in TOML.
struct Steps {
    config: StudentConfig,
    architecture: Architecture,
    params: NetParams,
}

impl Steps {
    fn new(teacher: &str, methods: &[&str]) -> Self {
        let methods: String = methods.iter().map(|method| format!("[[method]]\n{method}\nweight = 0.1\n")).collect();
        let text = format!("input = [64, 64]\nbatch = 2\noptimizer = 'sgd'\n[teacher]\n{teacher}\n{methods}");
        let config: StudentConfig = toml::from_str(&text).unwrap();
        let architecture = config.load_architecture().unwrap();
        let params = NetParams::random(&architecture.graph(64, 64), 5);
        Self { config, architecture, params }
    }

    fn batch(&self, step: u64) -> Batch {
        let classes = self.architecture.detection_classes().len();
        let areas = self.architecture.segmentation_classes().len();
        let labelled = |x: f32, class: usize| {
            let bbox = BoundingBox { x_min: x, y_min: 8.0, x_max: x + 24.0, y_max: 40.0 };
            let teacher_logits = Some(check::values(classes, class as u64));
            Object { label: Some(class), teacher_logits, ..Object::at(bbox) }
        };
        Batch {
            step,
            input: check::values(2 * 3 * 64 * 64, step),
            pictures: vec![],
            objects: vec![vec![labelled(4.0, 0)], vec![labelled(30.0, 1), labelled(2.0, 0)]],
            known: vec![vec![true; classes]; 2],
            masks: vec![Some((0..256).map(|i| (i % areas) as u8).collect()), None],
            soft_masks: vec![None, None],
            features: vec![vec![], vec![]],
            scenes: vec![vec![], vec![]],
            soft_scenes: vec![None, None],
            files: vec!["a".into(), "b".into()],
            teacher_outputs: vec![],
        }
    }

    /// On the CPU, or on a device as one graph a step with the teacher in it.
    fn run(&self, count: u64, device: Option<(&Arc<dyn Driver>, Precision)>) -> Vec<Losses> {
        let Self { config, architecture, params } = self;
        let net = TrainNet::new(architecture.graph(64, 64), params.clone(), 2);
        let mut state = TrainState::new(net, config);
        let (distillation, mut teacher) =
            Distillation::prepare(config, architecture, &state.net, None).unwrap().expect("methods");
        if let Some((driver, precision)) = device {
            let layers: Vec<_> = distillation.layers().collect();
            state = state.on(OpenDevice::Cuda(Arc::clone(driver), precision), &layers).unwrap();
            match &teacher {
                TeacherSource::Average(teacher) => teacher.move_to(&mut state.net).unwrap(),
                TeacherSource::Package(teacher) => teacher.move_to(&mut state.net).unwrap(),
                TeacherSource::Offline(_) => {}
            }
        }
        let areas = architecture.segmentation_classes().len();
        let computer = LossComputer::new(architecture, vec![1.0; areas]).with_distillation(Some(distillation));
        let step = |at: u64| {
            let mut batch = self.batch(at);
            if device.is_none() {
                batch.teacher_outputs = match &mut teacher {
                    TeacherSource::Average(teacher) => teacher.infer(&state.average, &batch.input).unwrap(),
                    TeacherSource::Package(teacher) => teacher.infer(&batch.input).unwrap(),
                    TeacherSource::Offline(_) => vec![],
                };
            }
            state.net.zero_gradients().unwrap();
            state.announce(1e-3, 1e-4, 10.0, 0.5);
            let losses = computer.gradients(&mut state.net, &batch, config).unwrap();
            assert!(state.update(1e-3, 1e-4, 10.0, 0.5).unwrap().is_finite());
            state.step += 1;
            losses
        };
        (0..count).map(step).collect()
    }

    fn assert_same(&self, driver: &Arc<dyn Driver>, precision: Precision, tolerance: f32) {
        let steps = self.run(3, None).into_iter().zip(self.run(3, Some((driver, precision))));
        for (step, (expected, found)) in steps.enumerate() {
            let all = |losses: &Losses| -> Vec<f32> {
                let Losses { class, teacher, bbox, box_distribution, segmentation, scene, methods } = losses.clone();
                [class, teacher, bbox, box_distribution, segmentation, scene].into_iter().chain(methods).collect()
            };
            assert!(expected.total() > 0.0 && expected.methods.len() == self.config.methods.len());
            for (term, (a, b)) in all(&found).into_iter().zip(all(&expected)).enumerate() {
                let near = (a - b).abs() <= tolerance * (b.abs() + 1e-2);
                assert!(near, "step {step}, term {term}: {a} instead of {b}");
            }
        }
    }
}

#[test]
fn steps_with_every_loss_and_method_follow_the_cpus() {
    let Some(driver) = Emulated::of(&Precision::Single.modules(), false, false) else { return };
    Steps::new("average = true", &METHODS).assert_same(&driver, Precision::Single, 1e-3);
}

#[test]
fn steps_with_a_package_as_their_teacher_follow_the_cpus() {
    let Some(driver) = Emulated::of(&Precision::Single.modules(), false, false) else { return };
    let teacher = format!("package = {:?}", peregrine_support::lite());
    let methods = [&METHODS[..], &["kind = 'cross'"]].concat();
    Steps::new(&teacher, &methods).assert_same(&driver, Precision::Single, 1e-3);
}

#[test]
fn steps_in_half_precision_follow_the_cpus_to_its_rounding() {
    let Some(driver) = Emulated::of(&Precision::Half.modules(), false, false) else { return };
    Steps::new("average = true", &METHODS).assert_same(&driver, Precision::Half, 3e-2);
}
