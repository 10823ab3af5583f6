//! Student packages on disk.

mod package;
