//! Data, teachers, imported networks and inspection.

mod data;
mod import_networks;
mod import_recording;
mod inspect;
mod judged;
mod runtime;
mod teacher_inputs;
mod teacher_support;
mod teachers;
