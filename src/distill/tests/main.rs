//! Data, teachers, imported networks and inspection.

mod damaged;
mod data;
mod import;
mod import_networks;
mod import_recording;
mod inspect;
mod judged;
mod layouts;
mod pictures;
mod runtime;
mod teacher_inputs;
mod teacher_support;
mod teachers;
