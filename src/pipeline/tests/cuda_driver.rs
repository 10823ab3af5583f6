//! The calls to the CUDA driver, against a library that stands in for it
//! (`tests/reference_engine/cuda/driver.c`): it checks what it is given, and counts what is not
//! given back. Kernels do nothing there.
//!
//! A library is found when a process starts, so this program starts itself again for each case.

#![cfg(all(feature = "cuda", target_os = "linux"))]

use std::path::{Path, PathBuf};
use std::process::Command;

use peregrine_core::allocations::{allocations, CountingAllocator};
use peregrine_core::ImageView;
use peregrine_engine::cuda::compiled::{self, CompilerInUse};
use peregrine_engine::cuda::driver::DeviceInfo;
use peregrine_engine::cuda::kernels::Module;
use peregrine_engine::cuda::nvrtc;
use peregrine_pipeline::{DeviceChoice, DeviceInUse, GpuOptions, GpuWait, Pipeline, PipelineOptions};
use peregrine_student::Student;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::per_thread();

/// Set where it is to count what frames allocate once all is warm.
const STEADY: &str = "PEREGRINE_TEST_STEADY";

/// How the GPU is waited for; spinning by default.
const WAIT: &str = "PEREGRINE_TEST_WAIT";

/// Set where the frames are of four cameras, those of each round begun before the first is finished.
const AT_ONCE: &str = "PEREGRINE_TEST_AT_ONCE";

/// What the process started again is to do.
const CHILD: &str = "PEREGRINE_TEST_CHILD";

/// A round of frames of four cameras, each begun before the first is finished where all graphs are there.
fn at_once(pipeline: &mut Pipeline, image: &ImageView) -> Result<(), String> {
    let begun: [_; 4] = std::array::from_fn(|camera| pipeline.begin(camera, image));
    begun.into_iter().enumerate().try_for_each(|(camera, begun)| {
        pipeline.finish(camera, image, begun, 0).map(drop).map_err(|error| error.to_string())
    })
}

/// Frames of two cameras on the device that the variable asks for, or of four at once: prints where they were worked
/// on, or why not.
#[test]
#[ignore = "the other tests start it"]
fn child() {
    let Ok(device) = std::env::var(CHILD) else { return };
    let wait = std::env::var(WAIT).map_or(GpuWait::Spin, |wait| wait.parse().unwrap());
    let gpu = GpuOptions { wait, priority: -9, ..GpuOptions::default() };
    let options = PipelineOptions { input_size: Some((64, 64)), gpu, ..PipelineOptions::default() };
    let choice: DeviceChoice = device.parse().unwrap();
    let pixels = vec![7; 3 * 48 * 40];
    let outcome =
        Pipeline::on(&Student::embedded(), options, choice).map_err(|e| e.to_string()).and_then(|mut pipeline| {
            if std::env::var_os(AT_ONCE).is_some() {
                let image = ImageView::new("rgb8", 48, 40, 3 * 48, &pixels).unwrap();
                (0..2).try_for_each(|_| at_once(&mut pipeline, &image))?;
                let rounds = if std::env::var_os(STEADY).is_some() { 250 } else { 0 };
                let before = allocations();
                (0..rounds).try_for_each(|_| at_once(&mut pipeline, &image))?;
                println!("allocations of {rounds} rounds: {}", allocations() - before);
                return Ok(pipeline.device());
            }
            let mut frame = |camera, encoding| {
                let image = ImageView::new(encoding, 48, 40, 3 * 48, &pixels).unwrap();
                pipeline.process_from(camera, &image, 0).map(|_| ()).map_err(|e| e.to_string())
            };
            let kinds = [(0, "rgb8"), (1, "bgr8"), (0, "rgb8"), (1, "rgb8")];
            kinds.iter().try_for_each(|&(camera, encoding)| frame(camera, encoding))?;
            if std::env::var_os(STEADY).is_some() {
                let before = allocations();
                (0..1000).try_for_each(|i| frame(kinds[i % 4].0, kinds[i % 4].1))?;
                println!("allocations of 1000 frames: {}", allocations() - before);
            }
            Ok(pipeline.device())
        });
    println!("outcome: {outcome:?}");
    match outcome {
        Ok(DeviceInUse::Cuda(_)) => println!("on cuda"),
        Ok(DeviceInUse::Cpu { instead_of_cuda }) => println!("on cpu: {}", instead_of_cuda.unwrap_or_default()),
        Err(why) => println!("refused: {why}"),
    }
}

/// The stand-in, built, and kernels for it that need no compiler.
struct StandIn {
    folder: tempfile::TempDir,
}

/// How a case ended: what the child said last, the calls made, and whether all was given back.
struct Ended {
    said: String,
    text: String,
    calls: usize,
    launches: usize,
    /// The most launches before the first of them was waited for.
    together: usize,
    /// Edges over which a kernel starts before another has ended.
    early: usize,
    held: String,
}

impl StandIn {
    /// `None`, with the skip recorded, if there is no C compiler.
    fn new(define: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference_engine/cuda/driver.c");
        let built = Command::new("gcc")
            .args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
            .arg(folder.path().join("libcuda.so.1"))
            .args(define)
            .arg(source)
            .status();
        match built {
            Ok(status) => assert!(status.success(), "the stand-in does not compile"),
            Err(why) => {
                peregrine_support::skip("cxx", &format!("gcc does not start ({why})"));
                return None;
            }
        }
        let this = Self { folder };
        for (architecture, integrated, driver) in [(90, false, 13_000), (87, true, 13_000)] {
            let device =
                DeviceInfo { name: "a stand-in 0".into(), architecture, multiprocessors: 132, integrated, driver };
            for module in Module::ALL {
                // For the NVRTC that is found, and where none is.
                for version in nvrtc::version().into_iter().chain([(12, 0)]) {
                    let compiler = CompilerInUse { version, compile: &|_, _| Ok(b"\x7fELF".to_vec()) };
                    compiled::load(&device, &module.whole(), Some(&this.cache()), Some(compiler), |_| Ok(())).unwrap();
                }
            }
        }
        Some(this)
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn run(&self, device: &str, settings: &[(&str, &str)]) -> Ended {
        let report = self.folder.path().join("report");
        let libraries = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
        let out = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "child", "--nocapture"])
            .env(CHILD, device)
            .env("LD_LIBRARY_PATH", format!("{}:{libraries}", self.folder.path().display()))
            .env("PEREGRINE_CUDA_CACHE", self.cache())
            .env("STAND_IN_REPORT", &report)
            .envs(settings.iter().copied())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{settings:?}: {text}{}", String::from_utf8_lossy(&out.stderr));
        let report = std::fs::read_to_string(report).unwrap();
        let [calls, early, launches, together, held] = report.lines().collect::<Vec<_>>()[..] else {
            panic!("{report}")
        };
        let said = |line: &&str| ["on cuda", "on cpu: ", "refused: "].iter().any(|start| line.starts_with(start));
        Ended {
            said: text.lines().rfind(said).unwrap_or_else(|| panic!("{text}")).to_owned(),
            calls: calls.trim_start_matches("calls ").parse().unwrap(),
            launches: launches.trim_start_matches("launches ").parse().unwrap(),
            together: together.trim_start_matches("together ").parse().unwrap(),
            early: early.trim_start_matches("early ").parse().unwrap(),
            held: held.trim().to_owned(),
            text,
        }
    }
}

#[test]
fn kernels_start_early_where_device_and_driver_allow_it() {
    let Some(stand_in) = StandIn::new(&[]) else { return };
    let on = |capability, refuse| {
        let ended = stand_in.run("cuda", &[("STAND_IN_CAPABILITY", capability), ("STAND_IN_REFUSE_EARLY", refuse)]);
        assert_eq!((ended.said.as_str(), ended.held.as_str()), ("on cuda", NOTHING_HELD));
        ended.early
    };
    assert!(on("90", "0") > 50);
    assert_eq!(on("87", "0"), 0);
    // A driver that refuses such graphs is asked for others.
    assert!(on("90", "1") > 0);

    let Some(old) = StandIn::new(&["-DLACKS_EARLY"]) else { return };
    let ended = old.run("cuda", &[]);
    assert_eq!((ended.said.as_str(), ended.early, ended.held.as_str()), ("on cuda", 0, NOTHING_HELD));
}

const NOTHING_HELD: &str = "held 0 0 0 0 0 0 0";

#[test]
fn two_cameras_frames_run_and_all_memory_is_given_back() {
    let Some(stand_in) = StandIn::new(&[]) else { return };
    for capability in ["90", "87"] {
        let first = stand_in.run("cuda", &[("STAND_IN_CAPABILITY", capability)]);
        assert_eq!((first.said.as_str(), first.held.as_str()), ("on cuda", NOTHING_HELD));
        let second = stand_in.run("cuda", &[("STAND_IN_CAPABILITY", capability)]);
        assert_eq!((second.said.as_str(), second.held.as_str()), ("on cuda", NOTHING_HELD));
        assert!(second.calls * 2 < first.calls, "variants are measured once: {} and {}", first.calls, second.calls);
    }
}

#[test]
fn one_of_several_devices_is_taken_by_its_number() {
    let Some(stand_in) = StandIn::new(&[]) else { return };
    let two = [("STAND_IN_DEVICES", "2")];
    let second = stand_in.run("cuda:1", &two);
    assert_eq!((second.said.as_str(), second.held.as_str()), ("on cuda", NOTHING_HELD));
    assert!(second.text.contains("a stand-in 1"), "{}", second.text);
    let third = stand_in.run("cuda:2", &two);
    assert!(third.said.starts_with("refused: there is no CUDA device 2: the driver offers 2"), "{}", third.said);
    assert_eq!(third.held, NOTHING_HELD);
}

#[test]
fn frames_of_known_kinds_allocate_nothing_on_the_host() {
    let Some(stand_in) = StandIn::new(&[]) else { return };
    for capability in ["90", "87"] {
        let ended = stand_in.run("cuda", &[("STAND_IN_CAPABILITY", capability), (STEADY, "1")]);
        assert_eq!((ended.said.as_str(), ended.held.as_str()), ("on cuda", NOTHING_HELD));
        assert!(ended.text.contains("allocations of 1000 frames: 0\n"), "sm_{capability}: {}", ended.text);
    }
}

#[test]
fn four_cameras_are_launched_before_the_first_is_waited_for_without_allocating() {
    let Some(stand_in) = StandIn::new(&[]) else { return };
    for (capability, wait) in [("90", "spin"), ("87", "block")] {
        let settings = [("STAND_IN_CAPABILITY", capability), (WAIT, wait), (STEADY, "1")];
        // Variants are measured first, by launches.
        stand_in.run("cuda", &settings);
        assert_eq!(stand_in.run("cuda", &settings).together, 1, "one at a time");
        let ended = stand_in.run("cuda", &[&settings[..], &[(AT_ONCE, "1")]].concat());
        assert_eq!((ended.said.as_str(), ended.held.as_str()), ("on cuda", NOTHING_HELD));
        assert_eq!((ended.together, ended.launches), (4, 4 * 252), "sm_{capability}");
        assert!(ended.text.contains("allocations of 250 rounds: 0\n"), "sm_{capability}: {}", ended.text);
    }
}

#[test]
fn a_device_that_fails_while_cameras_run_side_by_side_falls_back_in_time() {
    let Some(stand_in) = StandIn::new(&[]) else { return };
    stand_in.run("cuda", &[]);
    let whole = stand_in.run("cuda", &[(AT_ONCE, "1")]);
    assert_eq!((whole.launches, whole.together), (8, 4));
    // The second round, and the end.
    for n in whole.calls - 40..whole.calls {
        let ended = stand_in.run("auto", &[(AT_ONCE, "1"), ("STAND_IN_FAIL", &n.to_string())]);
        assert_eq!(ended.held, NOTHING_HELD, "lost after call {n}: {}", ended.said);
        assert!(ended.said.contains("lost in a test") || ended.said == "on cuda", "call {n}: {}", ended.said);
    }
    for (n, wait) in (5..=8).zip(["block", "spin"].into_iter().cycle()) {
        let settings = [(AT_ONCE, "1"), (WAIT, wait), ("STAND_IN_HANG", &n.to_string())];
        let ended = stand_in.run("auto", &settings);
        let falls_back = ended.said.starts_with("on cpu: ") && ended.said.contains("within 500 ms");
        assert!(falls_back, "{wait}, launch {n}: {}", ended.said);
    }
}

#[test]
fn a_device_lost_at_any_call_falls_back_and_leaks_nothing() {
    let Some(stand_in) = StandIn::new(&[]) else { return };
    stand_in.run("cuda", &[]);
    let calls = stand_in.run("cuda", &[]).calls;
    // Every call of the beginning and of the end, where frames are; a few of the many in between.
    let cases = (0..6).chain((6..calls - 8).step_by(calls / 12)).chain(calls - 8..calls);
    for n in cases {
        let n = n.to_string();
        let ended = stand_in.run("auto", &[("STAND_IN_FAIL", &n)]);
        assert_eq!(ended.held, NOTHING_HELD, "lost after call {n}: {}", ended.said);
        // A failure at the very end, after all frames, affects no frame.
        let sentence = ended.said.starts_with("on cpu: ") && ended.said.contains("lost in a test");
        assert!(sentence && !ended.said.contains("DriverError") || ended.said == "on cuda", "call {n}: {}", ended.said);
    }
    let refused = stand_in.run("cuda", &[("STAND_IN_FAIL", "40")]).said;
    assert!(refused.starts_with("refused: ") && refused.contains("nvidia-smi"), "{refused}");
}

#[test]
fn a_device_that_hangs_in_any_frame_is_left_to_itself_in_time() {
    let Some(stand_in) = StandIn::new(&[]) else { return };
    // Variants are measured first, by launches.
    stand_in.run("cuda", &[]);
    let launches = stand_in.run("cuda", &[]).launches;
    assert_eq!(launches, 4, "one for each frame");
    for wait in ["block", "spin"] {
        for n in 1..=launches {
            let (n, settings) = (n.to_string(), (WAIT, wait));
            let ended = stand_in.run("auto", &[("STAND_IN_HANG", &n), settings]);
            let falls_back = ended.said.starts_with("on cpu: ") && ended.said.contains("within 500 ms");
            assert!(falls_back, "{wait}, launch {n}: {}", ended.said);
            let refused = stand_in.run("cuda", &[("STAND_IN_HANG", &n), settings]).said;
            assert!(refused.starts_with("refused: ") && refused.contains("within 500 ms"), "{refused}");
        }
    }
}

#[test]
fn an_unusable_driver_is_refused_with_a_remedy() {
    let Some(stand_in) = StandIn::new(&[]) else { return };
    let refused = |stand_in: &StandIn, settings: &[(&str, &str)], parts: &[&str]| {
        let ended = stand_in.run("cuda", settings);
        assert!(parts.iter().all(|part| ended.said.contains(part)), "{settings:?}: {}", ended.said);
        assert!(ended.said.starts_with("refused: "), "{}", ended.said);
        assert_eq!(ended.held, NOTHING_HELD);
    };
    refused(&stand_in, &[("STAND_IN_VERSION", "11040")], &["CUDA 11.4", "12.0", "update the NVIDIA driver"]);
    refused(&stand_in, &[("STAND_IN_CAPABILITY", "61")], &["a stand-in 0", "sm_61", "sm_75", "device: cpu"]);
    refused(&stand_in, &[("STAND_IN_DEVICES", "0")], &["no device", "CUDA_VISIBLE_DEVICES"]);
    if let Some((major, minor)) = nvrtc::version().filter(|&(major, _)| major > 12) {
        let newer = format!("NVRTC {major}.{minor} is newer");
        refused(&stand_in, &[("STAND_IN_VERSION", "12040")], &[&newer, "CUDA 12.4", "nvidia-cuda-nvrtc-cu12"]);
    }
    // No kernels are kept for this one, and NVRTC is out of reach.
    let nowhere = [("STAND_IN_CAPABILITY", "75"), ("LD_LIBRARY_PATH", stand_in.folder.path().to_str().unwrap())];
    let ended = stand_in.run("cuda", &nowhere);
    assert!(ended.said.contains("NVRTC") || ended.said == "on cuda", "{}", ended.said);
    let without_graphs = StandIn::new(&["-DLACKS_GRAPHS"]).unwrap();
    refused(&without_graphs, &[], &["lacks cuGraph", "update the NVIDIA driver"]);
}
