//! The tests of this crate, on the bags of tests/reference/bags, which PyPI's `rosbags` wrote.

mod bags;
mod damage;
mod messages_video;
mod recorder;
#[path = "../../video/tests/support.rs"]
mod streams;
mod support;
mod video;
