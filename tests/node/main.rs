//! The program `perception_node` as its users meet it: over DDS, with peers written with rclpy.

mod black_box;
mod documents;
mod end_to_end;
mod field;
mod lifecycle;
mod own_classes;
mod own_student_guide;
mod packaging;
mod resilience;
mod scene;
mod scene_class;
mod set_up;
mod soak;
mod stock_tools;
#[cfg(feature = "video")]
#[path = "../../src/video/tests/support.rs"]
mod streams;
mod support;
mod systemd;
#[path = "../../src/distill/tests/teacher_support.rs"]
mod teacher_support;
#[cfg(feature = "video")]
mod video;
mod web;
