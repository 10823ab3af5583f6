//! `distill` as its users meet it: the program, its files and its exit codes.

mod ablate;
mod accuracy;
mod carried;
mod cluster;
mod evaluate;
mod export;
mod features;
mod guide;
mod killed;
mod own_classes;
mod quantize;
mod scene;
mod select;
mod soften;
mod student;
mod support;
mod teacher;
#[path = "../../src/distill/tests/teacher_support.rs"]
mod teacher_support;
