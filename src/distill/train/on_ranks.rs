//! Steps of a training by several ranks, beside one process that has the whole batch.

use peregrine_core::BoundingBox;

use crate::net::{check, NetParams};
use crate::ranks::threads::on_ranks;
use crate::ranks::Ranks;
use crate::train::batches::Batch;
use crate::train::checkpoint::TrainState;
use crate::train::config::StudentConfig;
use crate::train::device::OpenDevice;
use crate::train::distillation::{Distillation, TeacherSource};
use crate::train::init;
use crate::train::objects::Object;
use crate::train::step::{LossComputer, Losses};

const STEPS: u64 = 3;
const SIDE: usize = 64;

const METHODS: [&str; 7] = [
    "kind = 'kd'\non = 'class'",
    "kind = 'kd'\non = 'segmentation'\nlabelled = true",
    "kind = 'dist'\non = 'class'",
    "kind = 'rkd'",
    "kind = 'ld'\nmin_score = 0.001",
    "kind = 'pkd'",
    "kind = 'cwd'",
];

fn config(keys: &str) -> StudentConfig {
    let methods: String = METHODS.iter().map(|method| format!("[[method]]\n{method}\nweight = 0.1\n")).collect();
    let student = "[student]\nclasses = ['car', 'person']\nsegmentation = ['road', 'sky']\nscene = ['day', 'night']\n";
    let text = format!(
        "input = [{SIDE}, {SIDE}]\nbatch = 4\noptimizer = 'sgd'\n{keys}\n{student}[teacher]\naverage = true\n{methods}"
    );
    toml::from_str(&text).unwrap()
}

/// Four images: objects in the first two, a mask in the second, scenes in the last two.
fn batch(step: u64) -> Batch {
    let labelled = |x: f32, class: usize| {
        let bbox = BoundingBox { x_min: x, y_min: 8.0, x_max: x + 24.0, y_max: 40.0 };
        Object { label: Some(class), teacher_logits: Some(check::values(2, class as u64)), ..Object::at(bbox) }
    };
    Batch {
        step,
        input: check::values(4 * 3 * SIDE * SIDE, step),
        pictures: vec![],
        objects: vec![vec![labelled(4.0, 0)], vec![labelled(30.0, 1), labelled(2.0, 0)], vec![], vec![]],
        known: vec![vec![true; 2]; 4],
        masks: vec![None, Some((0..256).map(|i| (i % 2) as u8).collect()), None, None],
        soft_masks: vec![None; 4],
        features: vec![vec![]; 4],
        scenes: vec![vec![None], vec![None], vec![Some(0)], vec![Some(1)]],
        soft_scenes: vec![None; 4],
        files: ["a", "b", "c", "d"].map(Into::into).to_vec(),
        teacher_outputs: vec![],
    }
}

/// The images of a batch that a rank has.
fn part(batch: &Batch, ranks: &Ranks) -> Batch {
    fn of<T: Clone>(values: &[T], ranks: &Ranks) -> Vec<T> {
        values.chunks(values.len() / ranks.size()).nth(ranks.rank()).unwrap().to_vec()
    }
    Batch {
        step: batch.step,
        input: of(&batch.input, ranks),
        pictures: vec![],
        objects: of(&batch.objects, ranks),
        known: of(&batch.known, ranks),
        masks: of(&batch.masks, ranks),
        soft_masks: of(&batch.soft_masks, ranks),
        features: of(&batch.features, ranks),
        scenes: of(&batch.scenes, ranks),
        soft_scenes: of(&batch.soft_scenes, ranks),
        files: of(&batch.files, ranks),
        teacher_outputs: vec![],
    }
}

/// Some steps; the losses of each, and the parameters after them.
fn train(config: &StudentConfig, ranks: &Ranks) -> (Vec<Losses>, Vec<f32>) {
    train_on(config, ranks, None)
}

/// The same on a device.
fn train_on(config: &StudentConfig, ranks: &Ranks, device: Option<OpenDevice>) -> (Vec<Losses>, Vec<f32>) {
    let architecture = config.load_architecture().unwrap();
    let (net, _) = init::network(config, &architecture, None, ranks).unwrap();
    let mut state = TrainState::new(net, config);
    if !ranks.is_first() {
        // What rank 0 begins with is what counts.
        state.net.params = NetParams::random(&state.net.graph, 99);
    }
    state.take_from_first(ranks);
    let prepared = Distillation::prepare(config, &architecture, &state.net, None).unwrap();
    let Some((distillation, TeacherSource::Average(mut teacher))) = prepared else { panic!("no teacher") };
    if let Some(device) = device {
        let layers: Vec<_> = distillation.layers().collect();
        state = state.on(device, &layers).unwrap();
    }
    let losses = LossComputer::new(&architecture, vec![1.0, 2.0]).with_distillation(Some(distillation));
    let losses = losses.with_ranks(ranks);
    let step = |at: u64| {
        let mut batch = part(&batch(at), ranks);
        state.fetch_average().unwrap();
        batch.teacher_outputs = teacher.infer(&state.average, &batch.input).unwrap();
        state.net.zero_gradients().unwrap();
        let found = losses.gradients(&mut state.net, &batch, config).unwrap();
        state.net.unite(ranks).unwrap();
        assert!(state.update(1e-3, 1e-4, 10.0, 0.5).unwrap().is_finite());
        state.step += 1;
        found
    };
    let losses = (0..STEPS).map(step).collect();
    #[cfg(feature = "cuda")]
    if let Some((cuda, params)) = state.net.cuda() {
        cuda.take(params).unwrap();
    }
    (losses, state.net.params.state().into_values().flat_map(|values| values.clone()).collect())
}

fn terms(losses: &Losses) -> Vec<f32> {
    let Losses { class, teacher, bbox, box_distribution, segmentation, scene, methods } = losses.clone();
    [class, teacher, bbox, box_distribution, segmentation, scene].into_iter().chain(methods).collect()
}

#[test]
fn ranks_have_the_losses_of_one_process_and_equal_weights() {
    let config = config("");
    let (expected, weights) = train(&config, &Ranks::alone());
    assert!(terms(&expected[0]).iter().all(|&term| term != 0.0), "{:?}", expected[0]);
    for size in [2, 4] {
        let found = on_ranks(size, |ranks| train(&config, &ranks));
        assert!(found.iter().all(|of_rank| *of_rank == found[0]), "the ranks differ");
        for (step, (expected, found)) in expected.iter().zip(&found[0].0).enumerate() {
            for (term, (a, b)) in terms(found).into_iter().zip(terms(expected)).enumerate() {
                assert!((a - b).abs() <= 1e-3 * b.abs() + 1e-5, "step {step}, term {term}: {a} instead of {b}");
            }
        }
        let (largest, error) = weights
            .iter()
            .zip(&found[0].1)
            .fold((0.0f32, 0.0f32), |(largest, error), (a, b)| (largest.max(a.abs()), error.max((a - b).abs())));
        assert!(error < 1e-4 * largest, "{size} ranks: {error} of {largest}");
    }
}

#[test]
fn without_synchronised_batch_norm_the_ranks_still_have_equal_weights() {
    let (synchronised, own) = (config(""), config("sync_batch_norm = false"));
    let found = on_ranks(2, |ranks| train(&own, &ranks));
    assert!(found[0] == found[1], "the ranks differ");
    assert!(found[0].1 != on_ranks(2, |ranks| train(&synchronised, &ranks))[0].1, "batch-norm was synchronised");
    assert!(train(&own, &Ranks::alone()) == train(&synchronised, &Ranks::alone()), "there is nothing to synchronise");
}

#[test]
#[cfg(feature = "cuda")]
fn ranks_on_gpus_have_the_losses_of_ranks_on_cpus_and_equal_weights() {
    use crate::net::cuda::kernels::Precision;

    let Some(driver) = peregrine_reference::cuda::Emulated::of(&Precision::Single.modules(), false, false) else {
        return;
    };
    let mut config = config("sync_batch_norm = false");
    config.methods.retain(|of| !of.method.compares_examples());
    assert!(config.methods.len() >= 4);
    let expected = on_ranks(2, |ranks| train(&config, &ranks)).swap_remove(0);
    let device = || OpenDevice::Cuda(std::sync::Arc::clone(&driver), Precision::Single);
    let found = on_ranks(2, |ranks| train_on(&config, &ranks, Some(device())));
    assert!(found[0] == found[1], "the ranks differ");
    for (step, (expected, found)) in expected.0.iter().zip(&found[0].0).enumerate() {
        for (term, (a, b)) in terms(found).into_iter().zip(terms(expected)).enumerate() {
            assert!((a - b).abs() <= 1e-3 * b.abs() + 1e-5, "step {step}, term {term}: {a} instead of {b}");
        }
    }
}

/// What `deterministic = true` promises.
#[test]
fn a_run_repeats_its_weights_to_the_last_bit_whatever_the_number_of_threads() {
    let config = config("deterministic = true");
    let alone = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| train(&config, &Ranks::alone()))
    };
    let expected = alone(1);
    assert!(expected == alone(1) && expected == alone(3), "one process");
    let ranks = || on_ranks(2, |ranks| train(&config, &ranks)).swap_remove(0);
    assert!(ranks() == ranks(), "two ranks");
}
