//! Data, teachers, imported networks and inspection.

mod data;
mod import_networks;
mod inspect;
mod teacher_support;
mod teachers;
