//! The one monotonic clock of all time stamps.

use std::sync::OnceLock;
use std::time::Instant;

/// Nanoseconds since the first call in this process; monotonic, so that wall-clock adjustments do
/// not affect it.
pub fn now_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}
