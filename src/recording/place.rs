//! Where in a recording a message lies.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where in a recording a message lies.
#[derive(Debug, Clone)]
pub struct Place {
    pub file: Arc<Path>,
    /// Its number among the topic's messages in that file, from 1 on.
    pub number: u64,
    /// Nanoseconds since 1970.
    pub log_time: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "message {}, logged at {} ns", self.number, self.log_time)
    }
}
