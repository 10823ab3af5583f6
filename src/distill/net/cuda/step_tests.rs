//! Whole steps of a training with every loss and every distillation method, beside the CPU.

use peregrine_core::BoundingBox;
use peregrine_reference::cuda::Emulated;

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

#[test]
fn steps_with_every_loss_and_method_follow_the_cpus() {
    let Some(driver) = Emulated::of(&Precision::Single.modules(), false, false) else { return };
    let methods: String = METHODS.iter().map(|method| format!("[[method]]\n{method}\nweight = 0.1\n")).collect();
    let text = format!("input = [64, 64]\nbatch = 2\noptimizer = 'sgd'\n[teacher]\naverage = true\n{methods}");
    let config: StudentConfig = toml::from_str(&text).unwrap();
    let architecture = config.load_architecture().unwrap();
    let graph = architecture.graph(64, 64);
    let params = NetParams::random(&graph, 5);
    let (classes, areas) = (architecture.detection_classes().len(), architecture.segmentation_classes().len());
    let labelled = |x: f32, class: usize| {
        let bbox = BoundingBox { x_min: x, y_min: 8.0, x_max: x + 24.0, y_max: 40.0 };
        Object { label: Some(class), teacher_logits: Some(check::values(classes, class as u64)), ..Object::at(bbox) }
    };
    let batch = |step: u64| Batch {
        step,
        input: check::values(2 * 3 * 64 * 64, step),
        objects: vec![vec![labelled(4.0, 0)], vec![labelled(30.0, 1), labelled(2.0, 0)]],
        known: vec![vec![true; classes]; 2],
        masks: vec![Some((0..256).map(|i| (i % areas) as u8).collect()), None],
        soft_masks: vec![None, None],
        features: vec![vec![], vec![]],
        scenes: vec![vec![], vec![]],
        soft_scenes: vec![None, None],
        files: vec!["a".into(), "b".into()],
        teacher_outputs: vec![],
    };
    let run = |on_device: bool| -> Vec<Losses> {
        let net = TrainNet::new(graph.clone(), params.clone(), 2);
        let mut state = TrainState::new(net, &config);
        let prepared = Distillation::prepare(&config, &architecture, &state.net, None).unwrap();
        let Some((distillation, TeacherSource::Average(mut teacher))) = prepared else { panic!("no teacher") };
        if on_device {
            let layers: Vec<_> = distillation.layers().collect();
            let device = OpenDevice::Cuda(std::sync::Arc::clone(&driver), Precision::Single);
            state = state.on(device, &layers).unwrap();
        }
        let computer = LossComputer::new(&architecture, vec![1.0; areas]).with_distillation(Some(distillation));
        let step = |at: u64| {
            let mut batch = batch(at);
            state.fetch_average().unwrap();
            batch.teacher_outputs = teacher.infer(&state.average, &batch.input).unwrap();
            state.net.zero_gradients().unwrap();
            let losses = computer.gradients(&mut state.net, &batch, &config).unwrap();
            assert!(state.update(1e-3, 1e-4, 10.0, 0.5).unwrap().is_finite());
            state.step += 1;
            losses
        };
        (0..3).map(step).collect()
    };
    for (step, (expected, found)) in run(false).into_iter().zip(run(true)).enumerate() {
        let all = |losses: &Losses| -> Vec<f32> {
            let Losses { class, teacher, bbox, box_distribution, segmentation, scene, methods } = losses.clone();
            [class, teacher, bbox, box_distribution, segmentation, scene].into_iter().chain(methods).collect()
        };
        assert!(expected.total() > 0.0 && expected.methods.len() == METHODS.len());
        for (term, (a, b)) in all(&found).into_iter().zip(all(&expected)).enumerate() {
            assert!((a - b).abs() <= 1e-3 * b.abs() + 1e-5, "step {step}, term {term}: {a} instead of {b}");
        }
    }
}
