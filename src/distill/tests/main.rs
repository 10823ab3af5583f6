//! Data, teachers and inspection.

mod data;
mod inspect;
mod teacher_support;
mod teachers;
