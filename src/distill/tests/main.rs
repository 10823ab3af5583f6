//! Data, teachers, imported networks and inspection.

mod damaged;
mod data;
mod import;
mod import_networks;
mod import_recording;
mod import_video;
mod inspect;
mod judged;
mod layouts;
mod pictures;
#[path = "../../recording/tests/recorder.rs"]
mod recorder;
mod runtime;
mod scenes;
#[path = "../../video/tests/support.rs"]
mod streams;
mod teacher_inputs;
mod teacher_support;
mod teachers;
