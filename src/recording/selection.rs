//! Which images of a topic are wanted.

use std::str::FromStr;

/// Which images of a topic are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Selection {
    /// Seconds from the recording's beginning; earlier images are left out.
    pub from: Option<f64>,
    /// Seconds from the recording's beginning; later images are left out.
    pub to: Option<f64>,
    /// How many of the others.
    pub every: Every,
}

/// How many images are wanted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Every {
    /// The first of so many, at least 1.
    Frames(u64),
    /// The first of so many seconds.
    Seconds(f64),
}

impl Default for Every {
    fn default() -> Self {
        Self::Frames(1)
    }
}

impl FromStr for Every {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || format!("{text:?} is neither a number of images, such as 10, nor a time, such as 0.5s");
        match text.trim().strip_suffix('s') {
            Some(seconds) => match seconds.trim().parse::<f64>() {
                Ok(seconds) if seconds > 0.0 && seconds <= 86_400.0 => Ok(Self::Seconds(seconds)),
                _ => Err(form()),
            },
            None => match text.trim().parse() {
                Ok(frames @ 1..) => Ok(Self::Frames(frames)),
                _ => Err(form()),
            },
        }
    }
}

impl std::fmt::Display for Every {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Frames(frames) => write!(f, "{frames}"),
            Self::Seconds(seconds) => write!(f, "{seconds}s"),
        }
    }
}

impl Selection {
    /// The log times that are wanted of a recording that begins at `start`; both are inclusive.
    pub(crate) fn span(&self, start: u64) -> (u64, u64) {
        let at = |seconds: f64| start.saturating_add((seconds.max(0.0) * 1e9) as u64);
        (self.from.map_or(0, at), self.to.map_or(u64::MAX, at))
    }
}

/// Picks one of several images.
#[derive(Debug)]
pub(crate) struct Picker {
    every: Every,
    seen: u64,
    /// Log time from which on the next one is picked.
    due: u64,
}

impl Picker {
    pub fn new(every: Every) -> Self {
        Self { every, seen: 0, due: 0 }
    }

    /// Whether an image of this log time is picked.
    pub fn picks(&mut self, log_time: u64) -> bool {
        let index = self.seen;
        self.seen += 1;
        match self.every {
            Every::Frames(frames) => index.is_multiple_of(frames.max(1)),
            Every::Seconds(_) if log_time < self.due => false,
            Every::Seconds(seconds) => {
                let step = ((seconds * 1e9) as u64).max(1);
                // On a grid from the first image on, so that late ones do not add up; not behind a gap.
                let next = self.due.saturating_add(step);
                self.due = if index == 0 || next <= log_time { log_time.saturating_add(step) } else { next };
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(every: &str, times: &[u64]) -> Vec<u64> {
        let mut picker = Picker::new(every.parse().unwrap());
        times.iter().copied().filter(|&t| picker.picks(t * 1_000_000)).collect()
    }

    #[test]
    fn every_nth_image_is_picked_from_the_first_on() {
        assert_eq!(picked("3", &[0, 1, 2, 3, 4, 5, 6]), [0, 3, 6]);
    }

    #[test]
    fn every_t_seconds_keeps_its_rate_in_spite_of_jitter() {
        // Of 30 ms each, give or take one: every 0.1 s.
        assert_eq!(picked("0.1s", &[1000, 1031, 1059, 1091, 1120, 1149, 1181, 1211, 1240]), [1000, 1120, 1211]);
        assert_eq!(picked("1s", &[5, 9000, 9500, 10_005, 10_100]), [5, 9000, 10_005]);
    }

    #[test]
    fn what_is_neither_a_number_nor_a_time_is_refused() {
        for text in ["", "0", "-1", "s", "0s", "nans", "infs", "1.5", "1m"] {
            assert!(text.parse::<Every>().is_err(), "{text}");
        }
        assert_eq!("0.5s".parse::<Every>().unwrap().to_string(), "0.5s");
    }
}
