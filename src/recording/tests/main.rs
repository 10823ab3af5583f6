//! The tests of this crate, on the bags of tests/reference/bags, which PyPI's `rosbags` wrote.

mod bags;
mod damage;
mod support;
mod video;
