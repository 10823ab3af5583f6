//! Which model to load, and how: read from the parameters, so that loading can run on another
//! thread.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use peregrine_core::scheduling::use_default_scheduling;
use peregrine_core::{Encoding, ImageView};
use peregrine_pipeline::{DeviceChoice, DeviceInUse, GpuOptions, Pipeline, PipelineError, PipelineOptions};
use peregrine_student::{Architecture, Precision, Student};
use peregrine_track::TrackerOptions;

use super::classes::ModelClasses;
use super::description::device_text;
use super::{DegradedMode, LoadedModel, ModelDescription};
use crate::error::NodeError;
use crate::parameters::{Parameters, DEFAULT_ROAD};
use crate::realtime::{self, RealtimeProfile};

/// Runs before the first frame, after which caches, branch predictors and the engine's threads are
/// warm.
const WARM_UP_RUNS: usize = 3;

/// Prefix of the names of the CPU engine's own threads.
const ENGINE_THREADS: &str = "engine-";

/// Which model to load, and how.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// Folder of the student package; empty for the embedded one.
    folder: PathBuf,
    /// What the folder must lie below.
    root: Option<PathBuf>,
    device: String,
    precision: Precision,
    options: PipelineOptions,
    /// 0 for one for each core that the loading thread may use.
    threads: usize,
    degraded_mode: DegradedMode,
    /// Names of the segmentation classes that are road, separated by commas.
    road_classes: String,
    profile: RealtimeProfile,
}

impl ModelConfig {
    /// The score and IoU thresholds are not part of it: they may change with every frame, see
    /// [`FrameSettings`](crate::live::FrameSettings).
    pub fn new(parameters: &Parameters, profile: RealtimeProfile) -> Self {
        let size = (parameters.count("input_width"), parameters.count("input_height"));
        Self {
            folder: parameters.text("model").into(),
            root: Some(parameters.text("models_root")).filter(|root| !root.is_empty()).map(PathBuf::from),
            device: parameters.text("device").to_owned(),
            // The declaration permits nothing else.
            precision: parameters.text("precision").parse().unwrap_or_default(),
            options: PipelineOptions {
                max_detections: parameters.count("max_detections"),
                segmentation: parameters.flag("segmentation"),
                pin_threads: parameters.flag("pin_threads"),
                input_size: (size != (0, 0)).then_some(size),
                tracking: parameters.flag("tracking").then(|| TrackerOptions {
                    low_score: parameters.real("track_low_score") as f32,
                    keep_unseen: parameters.real("track_keep_s"),
                    ..TrackerOptions::default()
                }),
                gpu: GpuOptions {
                    // As above.
                    wait: parameters.text("gpu_wait").parse().unwrap_or_default(),
                    timeout: Duration::from_secs_f64(parameters.real("gpu_timeout_ms") / 1e3),
                    ..GpuOptions::default()
                },
                ..PipelineOptions::default()
            },
            threads: parameters.count("threads"),
            degraded_mode: DegradedMode::of(parameters.text("degraded_mode")),
            road_classes: parameters.text("road_classes").to_owned(),
            profile,
        }
    }

    /// The same with another model.
    pub fn with_model(&self, folder: &str) -> Self {
        Self { folder: folder.into(), ..self.clone() }
    }

    /// Loads the model and warms it up, with default scheduling: frames of the model in use come
    /// first.
    ///
    /// The engine's threads inherit this thread's cores, so it takes on those of the frame thread:
    /// call it on a thread made for it.
    ///
    /// # Errors
    /// When the model cannot be read, or an option does not fit it.
    pub fn load(&self) -> Result<(Box<LoadedModel>, ModelDescription), NodeError> {
        self.load_with(|student, options| pipeline(student, options, &self.device))
    }

    /// The same with pipelines that `pipeline` makes, on any device.
    ///
    /// # Errors
    /// As [`load`](Self::load), and those of `pipeline`.
    pub fn load_with(
        &self,
        pipeline: impl Fn(&Student, PipelineOptions) -> Result<Pipeline, NodeError>,
    ) -> Result<(Box<LoadedModel>, ModelDescription), NodeError> {
        // The thread that started this one may have a real-time priority.
        use_default_scheduling();
        // What is refused is reported for the frame thread, which is refused the same.
        realtime::apply_to_thread(&RealtimeProfile { priority: 0, ..self.profile.clone() });
        let options = PipelineOptions { threads: self.thread_count(), ..self.options.clone() };
        // Which twin is the faster one depends on the device, and that is known once there is a pipeline.
        let mut student = self.load_student(self.device == "cpu")?;
        let mut full = pipeline(&student, options.clone())?;
        if self.device != "cpu" && matches!(full.device(), DeviceInUse::Cpu { .. }) {
            let for_cpu = self.load_student(true)?;
            if for_cpu.precision() != student.precision() {
                full = pipeline(&for_cpu, options.clone())?;
                student = for_cpu;
            }
        }
        let architecture = &student.manifest.architecture;
        let classes = Arc::new(self.classes(architecture)?);
        warm_up(&mut full)?;
        let mut description = ModelDescription {
            student: student.manifest.name.clone(),
            device: device_text(&full.device()),
            precision: student.precision(),
            degraded_mode: None,
            classes: Some(Arc::clone(&classes)),
        };
        let mut reduced = None;
        if let Some((options, left_out)) = self.degraded_mode.reduce(&options, full.input_size(), architecture) {
            warm_up(reduced.insert(pipeline(&student, options)?))?;
            description.degraded_mode = Some(left_out);
        }
        // From now on frames wait for them. What is refused is reported as above.
        let _ = realtime::raise_threads(&self.profile, |name| name.starts_with(ENGINE_THREADS));
        Ok((Box::new(LoadedModel::new(full, reduced, architecture, classes, options.max_detections)), description))
    }

    /// The package in the folder, which is below the root if there is one; the embedded one without a
    /// folder.
    fn load_student(&self, on_cpu: bool) -> Result<Student, NodeError> {
        let folder = self.root.as_ref().map_or(self.folder.clone(), |root| root.join(&self.folder));
        let folder = Some(folder.as_path()).filter(|_| !self.folder.as_os_str().is_empty());
        Ok(Student::in_precision(folder, self.root.as_deref(), self.precision, on_cpu)?)
    }

    /// The classes of a model. That none of them is called road is nobody's mistake; a name that
    /// the user chose has to be there.
    fn classes(&self, architecture: &Architecture) -> Result<ModelClasses, NodeError> {
        let classes = ModelClasses::new(architecture, &self.road_classes);
        match classes.unknown(&self.road_classes).filter(|_| self.road_classes != DEFAULT_ROAD) {
            Some(name) => Err(NodeError::RoadClass(name.into(), classes.segmentation.join(", "))),
            None => Ok(classes),
        }
    }

    fn thread_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            threads => threads,
        }
    }
}

/// Runs the pipeline on a grey image.
fn warm_up(pipeline: &mut Pipeline) -> Result<(), NodeError> {
    let (width, height) = (640, 480);
    let pixels = vec![128; width * height * 3];
    let image = ImageView::with_encoding(Encoding::Rgb8, width as u32, height as u32, 3 * width as u32, &pixels)
        .expect("sizes fit");
    for _ in 0..WARM_UP_RUNS {
        pipeline.process(&image).map_err(|error| NodeError::WarmUp(error.to_string()))?;
    }
    pipeline.forget_cameras();
    Ok(())
}

/// A pipeline on the device that the parameter asks for.
fn pipeline(student: &Student, options: PipelineOptions, device: &str) -> Result<Pipeline, NodeError> {
    let choice: DeviceChoice = device.parse().map_err(NodeError::Device)?;
    Pipeline::on(student, options, choice).map_err(|error| match error {
        PipelineError::Device(why) => NodeError::Device(why),
        other => other.into(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::PoisonError;

    use peregrine_core::scheduling::{Scheduling, ThreadId};
    use peregrine_engine::cpu::int8::IntegerIsa;
    use r2r::ParameterValue;

    use super::*;

    /// With an input of 32x32, and two threads.
    fn small(profile: RealtimeProfile, more: &[(&str, ParameterValue)]) -> ModelConfig {
        let small = ["input_width", "input_height"].map(|name| (name.to_owned(), ParameterValue::Integer(32)));
        let threads = ("threads".to_owned(), ParameterValue::Integer(2));
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        ModelConfig::new(&Parameters::with(small.into_iter().chain([threads]).chain(more)).unwrap(), profile)
    }

    #[test]
    fn the_device_in_use_is_given_with_the_reason() {
        let load = |device: &str| {
            let device = ParameterValue::String(device.into());
            small(RealtimeProfile::default(), &[("device", device)]).load().unwrap().1.device
        };
        assert_eq!(load("cpu"), "cpu");
        let auto = load("auto");
        assert!(auto.starts_with("cuda (") || auto.starts_with("cpu (not cuda: "), "{auto}");
    }

    #[test]
    fn the_arithmetic_is_the_one_that_was_asked_for() {
        let load = |precision: &str| {
            let precision = ("precision", ParameterValue::String(precision.into()));
            let device = ("device", ParameterValue::String("cpu".into()));
            let loaded = small(RealtimeProfile::default(), &[precision, device]).load();
            loaded.map(|(_, description)| description.precision).map_err(|error| error.to_string())
        };
        let graph = Student::embedded().graph();
        let fastest = if IntegerIsa::best().is_faster_than_f32(&graph) { Precision::Int8 } else { Precision::F32 };
        for (asked, expected) in [("f32", Precision::F32), ("int8", Precision::Int8), ("auto", fastest)] {
            assert_eq!(load(asked), Ok(expected), "{asked}");
        }
    }

    #[test]
    fn engine_threads_get_the_priority_after_loading_and_not_before() {
        let _alone = realtime::PRIORITIES.lock().unwrap_or_else(PoisonError::into_inner);
        std::thread::spawn(|| {
            let profile = RealtimeProfile { priority: 10, ..RealtimeProfile::default() };
            if realtime::apply_to_thread(&profile).iter().any(|report| report.outcome.is_err()) {
                peregrine_support::skip("rtprio", "this process may not use SCHED_FIFO");
                return;
            }
            let (model, _) = small(profile, &[]).load().unwrap();
            assert_eq!(Scheduling::of(ThreadId::CURRENT).unwrap(), Scheduling::DEFAULT);
            assert!(realtime::scheduling_of("engine-1").contains(&Scheduling::fifo(10)));
            drop(model);
        })
        .join()
        .unwrap();
    }
}
