//! The networks of a configured node: built, warmed up, and replaced as a whole.

use std::path::{Path, PathBuf};

use peregrine_core::{Encoding, ImageView};
use peregrine_engine::cpu::Isa;
use peregrine_pipeline::{DeviceChoice, DeviceInUse, GpuOptions, Pipeline, PipelineError, PipelineOptions};
use peregrine_student::architecture::MAX_STRIDE;
use peregrine_student::{Architecture, Student};
use peregrine_track::TrackerOptions;

use super::error::NodeError;
use super::messages::{DetectionsMessage, NativeHeader};
use super::parameters::Parameters;
use super::realtime::{self, Profile};

/// Runs before the first frame, after which caches, branch predictors and the engine's threads have seen their work.
const WARM_UPS: usize = 3;

/// How the names of the CPU engine's own threads begin.
const ENGINE_THREADS: &str = "engine-";

/// A model ready for frames, and the message that carries its detections.
pub struct Engines {
    full: Pipeline,
    /// For the degraded mode, if it may be entered.
    less: Option<Pipeline>,
    /// Whether they ran on CUDA when that was last told.
    on_cuda: bool,
    pub detections_message: DetectionsMessage,
    /// Index of the class "road" in the segmentation, if the student has one.
    pub road_class: Option<u8>,
    pub architecture: Architecture,
}

/// What the engines were made of, for people.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Description {
    pub student: String,
    /// Such as `cpu`; with the reason where it is not the one that was hoped for.
    pub device: String,
    /// What the degraded mode leaves out; none where it is off.
    pub less: Option<String>,
    /// Of detections, and of the mask.
    pub classes: [Vec<String>; 2],
}

/// What to build; read from the parameters, so that building may happen on another thread.
#[derive(Debug, Clone)]
pub struct Recipe {
    model: PathBuf,
    device: String,
    options: PipelineOptions,
    /// 0 for as many as the building thread may use cores.
    threads: usize,
    less: Less,
    profile: Profile,
}

/// What the degraded mode leaves out.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Less {
    segmentation: bool,
    size: bool,
}

impl Recipe {
    pub fn new(parameters: &Parameters, profile: Profile) -> Self {
        let size = (parameters.count("input_width"), parameters.count("input_height"));
        let mode = parameters.text("degraded_mode");
        Self {
            model: parameters.text("model").into(),
            device: parameters.text("device").to_owned(),
            options: PipelineOptions {
                score_threshold: parameters.real("score_threshold") as f32,
                nms_iou: parameters.real("nms_iou") as f32,
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
                    // The declaration permits nothing else.
                    wait: parameters.text("gpu_wait").parse().unwrap_or_default(),
                    ..GpuOptions::default()
                },
                ..PipelineOptions::default()
            },
            threads: parameters.count("threads"),
            less: Less {
                segmentation: matches!(mode, "no_segmentation" | "both"),
                size: matches!(mode, "smaller_input" | "both"),
            },
            profile,
        }
    }

    /// The same with another model.
    pub fn with_model(&self, folder: &str) -> Self {
        Self { model: folder.into(), ..self.clone() }
    }

    /// Loads, builds and warms up, with ordinary scheduling: frames of the model in use come first. The engine's threads
    /// inherit this thread's cores, so it takes on those of the frame thread: call it on a thread made for it.
    ///
    /// # Errors
    /// When the model cannot be read, or an option does not suit it.
    pub fn build(&self) -> Result<(Box<Engines>, Description), NodeError> {
        self.build_with(|student, options| pipeline(student, options, &self.device))
    }

    /// The same with pipelines that `pipeline` makes, on whatever device.
    ///
    /// # Errors
    /// As [`build`](Self::build), and those of `pipeline`.
    pub fn build_with(
        &self,
        pipeline: impl Fn(&Student, PipelineOptions) -> Result<Pipeline, NodeError>,
    ) -> Result<(Box<Engines>, Description), NodeError> {
        // The thread that made this one may have a priority.
        realtime::be_patient();
        // What is refused is reported for the frame thread, which is refused the same.
        realtime::apply_to_thread(&Profile { priority: 0, ..self.profile.clone() });
        let student = match self.model.as_os_str().is_empty() {
            true => Student::embedded(),
            false => Student::load(Path::new(&self.model))?,
        };
        let threads = match self.threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            threads => threads,
        };
        let options = PipelineOptions { threads, ..self.options.clone() };
        let mut full = pipeline(&student, options.clone())?;
        warm_up(&mut full)?;
        let mut description = Description {
            student: student.manifest.name.clone(),
            device: described(&full.device()),
            ..Description::default()
        };
        let mut less = None;
        if let Some((reduced, what)) = self.less.apply(&options, full.input_size()) {
            let pipeline = less.insert(pipeline(&student, reduced)?);
            warm_up(pipeline)?;
            description.less = Some(what);
        }
        // From now on frames wait for them. What is refused is reported as above.
        let _ = realtime::raise_threads(&self.profile, |name| name.starts_with(ENGINE_THREADS));
        let architecture = &student.manifest.architecture;
        description.classes = [architecture.detection.classes.clone(), architecture.segmentation.classes.clone()];
        let road = architecture.segmentation.classes.iter().position(|name| name == "road");
        let engines = Engines {
            on_cuda: full.is_on_cuda(),
            full,
            less,
            detections_message: DetectionsMessage::new(&architecture.detection.classes, options.max_detections),
            road_class: road.and_then(|index| u8::try_from(index).ok()),
            architecture: architecture.clone(),
        };
        Ok((Box::new(engines), description))
    }
}

impl Less {
    /// The options of the degraded mode and what they leave out; none where that is nothing.
    fn apply(&self, options: &PipelineOptions, size: (usize, usize)) -> Option<(PipelineOptions, String)> {
        let mut reduced = options.clone();
        let mut what = Vec::new();
        if self.segmentation && options.segmentation {
            reduced.segmentation = false;
            what.push("without segmentation".to_owned());
        }
        // About half the operations: each side by the root of a half, in whole strides.
        let shrink =
            |side: usize| ((side as f64 * 0.5f64.sqrt() / MAX_STRIDE as f64).round() as usize).max(1) * MAX_STRIDE;
        let smaller = (shrink(size.0), shrink(size.1));
        if self.size && smaller != size {
            reduced.input_size = Some(smaller);
            what.push(format!("input {}x{} instead of {}x{}", smaller.0, smaller.1, size.0, size.1));
        }
        (!what.is_empty()).then(|| (reduced, what.join(", ")))
    }
}

impl Engines {
    /// The pipeline for full work, or for less of it.
    pub fn pipeline(&mut self, degraded: bool) -> &mut Pipeline {
        match (&mut self.less, degraded) {
            (Some(less), true) => less,
            _ => &mut self.full,
        }
    }

    /// Whether there is a pipeline for less work.
    pub fn can_degrade(&self) -> bool {
        self.less.is_some()
    }

    /// Makes the pipeline not in use ready for the images of a camera, so that it can be changed to without allocation.
    pub fn prepare_other(&mut self, degraded: bool, camera: usize, encoding: Encoding, size: (usize, usize)) {
        match (&mut self.less, degraded) {
            (Some(_), true) => self.full.prepare(camera, encoding, size),
            (Some(less), false) => less.prepare(camera, encoding, size),
            (None, _) => {}
        }
    }

    /// Where the pipeline in use runs now, in words, once after its device has failed.
    pub fn moved_to(&mut self, degraded: bool) -> Option<String> {
        if !self.on_cuda || self.pipeline(degraded).is_on_cuda() {
            return None;
        }
        self.on_cuda = false;
        Some(described(&self.pipeline(degraded).device()))
    }

    /// Lets the other pipeline follow the objects from the next frame on.
    pub fn hand_over_tracks(&mut self) {
        if let Some(less) = &mut self.less {
            self.full.exchange_tracks(less);
        }
    }

    /// Goes on with the tracks of the engines before, so that objects keep their identities and none is used twice.
    /// The tracks themselves end where the classes are others.
    pub fn take_tracks(&mut self, old: &mut Self, degraded: bool) {
        let same = self.architecture.detection.classes == old.architecture.detection.classes;
        let pipeline = self.pipeline(degraded);
        pipeline.exchange_tracks(old.pipeline(degraded));
        if !same {
            pipeline.forget_tracks();
        }
    }

    /// Fills the message with what the pipeline last found.
    pub fn fill_message(&mut self, degraded: bool, header: &NativeHeader) {
        let pipeline = match (&self.less, degraded) {
            (Some(less), true) => less,
            _ => &self.full,
        };
        let result = pipeline.result();
        self.detections_message.fill(header, &result.detections, &result.identities);
    }
}

/// A device for the diagnostics: its kind first, then which one, or why it is not the one that was hoped for, and that a
/// processor has no vectors.
fn described(device: &DeviceInUse) -> String {
    let kind = device.name();
    let advice = Isa::best().advice().map_or(String::new(), |advice| format!("; {advice}"));
    match device {
        DeviceInUse::Cpu { instead_of_cuda: None } => format!("{kind}{advice}"),
        DeviceInUse::Cpu { instead_of_cuda: Some(why) } => format!("{kind} (not cuda: {why}){advice}"),
        DeviceInUse::Cuda(name) => format!("{kind} ({name})"),
    }
}

/// Lets the pipeline work on a grey image.
fn warm_up(pipeline: &mut Pipeline) -> Result<(), NodeError> {
    let (width, height) = (640, 480);
    let pixels = vec![128; width * height * 3];
    let image = ImageView::with_encoding(Encoding::Rgb8, width as u32, height as u32, 3 * width as u32, &pixels)
        .expect("sizes fit");
    for _ in 0..WARM_UPS {
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
    use r2r::ParameterValue;

    use super::*;

    #[test]
    fn the_degraded_mode_says_what_it_leaves_out() {
        let options = PipelineOptions::default();
        let both = Less { segmentation: true, size: true };
        let (reduced, what) = both.apply(&options, (320, 256)).unwrap();
        assert_eq!((reduced.segmentation, reduced.input_size), (false, Some((224, 192))));
        assert_eq!(what, "without segmentation, input 224x192 instead of 320x256");
    }

    /// With an input of 32x32, and two threads.
    fn small(profile: Profile, more: &[(&str, ParameterValue)]) -> Recipe {
        let small = ["input_width", "input_height"].map(|name| (name.to_owned(), ParameterValue::Integer(32)));
        let threads = ("threads".to_owned(), ParameterValue::Integer(2));
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        Recipe::new(&Parameters::with(small.into_iter().chain([threads]).chain(more)).unwrap(), profile)
    }

    #[test]
    fn why_a_device_is_not_used_is_told_with_the_one_that_is() {
        let build = |device: &str| {
            let device = ParameterValue::String(device.into());
            small(Profile::default(), &[("device", device)]).build().unwrap().1.device
        };
        assert_eq!(build("cpu"), "cpu");
        let auto = build("auto");
        assert!(auto.starts_with("cuda (") || auto.starts_with("cpu (not cuda: "), "{auto}");
    }

    #[test]
    fn a_model_is_loaded_with_ordinary_scheduling_and_the_engines_threads_get_the_priority_afterwards() {
        std::thread::spawn(|| {
            let profile = Profile { priority: 10, ..Profile::default() };
            if realtime::apply_to_thread(&profile).iter().any(|report| report.outcome.is_err()) {
                eprintln!("skipped: this process may not use SCHED_FIFO");
                return;
            }
            let (engines, _) = small(profile, &[]).build().unwrap();
            // SAFETY: asks for a number.
            assert_eq!(unsafe { libc::sched_getscheduler(0) }, libc::SCHED_OTHER);
            assert!(realtime::policies("engine-1").contains(&libc::SCHED_FIFO));
            drop(engines);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn there_is_no_degraded_mode_that_leaves_out_nothing() {
        let options = PipelineOptions { segmentation: false, ..PipelineOptions::default() };
        assert_eq!(Less { segmentation: true, size: false }.apply(&options, (320, 256)), None);
        assert_eq!(Less { segmentation: false, size: true }.apply(&options, (32, 32)), None);
    }
}
