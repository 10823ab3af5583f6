//! Temperatures, clocks and the power supply of the machine during a run, from the system's files.

use serde::Serialize;

use super::sysfs::{jetson, thermal, Root};

/// The board at one instant. `None` is what it does not report.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BoardSample {
    /// Of the hottest zone.
    pub celsius: Option<f64>,
    /// Jetson's GPU.
    pub gpu_mhz: Option<f64>,
    /// Jetson's memory, as root.
    pub memory_mhz: Option<f64>,
    /// Whether a clock was lowered because of heat.
    pub slowed: bool,
}

/// The board during a run.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct BoardConditions {
    /// The zone that was hottest, and its highest temperature, °C.
    pub hottest: Option<(String, f64)>,
    /// Lowest and highest clock.
    pub gpu_mhz: Option<(f64, f64)>,
    pub memory_mhz: Option<(f64, f64)>,
    /// What lowered clocks because of heat, and in how many samples.
    pub slowed_by: Vec<(String, usize)>,
    /// Times at which the supply's current or voltage passed a limit, so that the hardware lowered clocks.
    pub over_current: Option<u64>,
}

impl BoardConditions {
    /// What is known, as phrases.
    pub fn facts(&self) -> Vec<String> {
        let clock = |of: &str, range: Option<(f64, f64)>| {
            range.map(|(low, high)| format!("{of} clock {low:.0} to {high:.0} MHz"))
        };
        let slowed_by = self.slowed_by.iter().map(|(by, samples)| format!("slowed down by {by} in {samples} samples"));
        let facts = [
            self.hottest.as_ref().map(|(zone, celsius)| format!("{zone} up to {celsius:.0} °C")),
            clock("GPU", self.gpu_mhz),
            clock("memory", self.memory_mhz),
            self.over_current.map(|times| format!("over-current {times} times")),
        ];
        facts.into_iter().flatten().chain(slowed_by).collect()
    }

    /// Names of what lowered clocks because of heat.
    pub fn slowed_by_names(&self) -> String {
        self.slowed_by.iter().map(|(by, _)| by.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// Watches the board from when it is made.
pub struct BoardWatch {
    root: Root,
    over_current: Option<u64>,
    found: BoardConditions,
}

impl BoardWatch {
    pub fn start(root: Root) -> Self {
        Self { over_current: jetson::over_current_events(&root), root, found: BoardConditions::default() }
    }

    /// The board now.
    pub fn sample(&mut self) -> BoardSample {
        let hottest = thermal::hottest(&self.root);
        let gpu_mhz = jetson::gpu_clock(&self.root).map(|clock| clock.now);
        let memory_mhz = jetson::memory_clock(&self.root).map(|clock| clock.now);
        let slowed_by = thermal::slowed_by(&self.root);
        let sample = BoardSample {
            celsius: hottest.as_ref().map(|(_, celsius)| *celsius),
            gpu_mhz,
            memory_mhz,
            slowed: !slowed_by.is_empty(),
        };
        let found = &mut self.found;
        if sample.celsius > found.hottest.as_ref().map(|(_, celsius)| *celsius) {
            found.hottest = hottest;
        }
        widen(&mut found.gpu_mhz, gpu_mhz);
        widen(&mut found.memory_mhz, memory_mhz);
        for name in slowed_by {
            match found.slowed_by.iter_mut().find(|(known, _)| *known == name) {
                Some((_, samples)) => *samples += 1,
                None => found.slowed_by.push((name, 1)),
            }
        }
        sample
    }

    /// What was found.
    pub fn end(mut self) -> BoardConditions {
        let now = jetson::over_current_events(&self.root);
        self.found.over_current = self.over_current.zip(now).map(|(before, now)| now.saturating_sub(before));
        self.found
    }
}

fn widen(range: &mut Option<(f64, f64)>, value: Option<f64>) {
    if let Some(value) = value {
        let (low, high) = range.unwrap_or((value, value));
        *range = Some((low.min(value), high.max(value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysfs::trees::Tree;

    #[test]
    fn heat_clocks_and_over_currents_of_a_jetson_are_watched() {
        let orin = Tree::recorded("jetson-orin");
        let mut watch = BoardWatch::start(orin.root());
        assert!(!watch.sample().slowed);
        orin.write("sys/class/devfreq/17000000.gpu/cur_freq", b"612000000");
        orin.write("sys/class/thermal/thermal_zone1/temp", b"99500");
        orin.write("sys/class/thermal/cooling_device5/cur_state", b"1");
        let hot = watch.sample();
        assert_eq!((hot.celsius, hot.gpu_mhz, hot.memory_mhz, hot.slowed), (Some(99.5), Some(612.0), None, true));
        orin.write("sys/class/thermal/thermal_zone1/temp", b"");
        orin.write("sys/class/hwmon/hwmon3/oc3_event_cnt", b"5");
        watch.sample();
        let facts = watch.end().facts();
        let expected = [
            "gpu-thermal up to 100 °C",
            "GPU clock 306 to 612 MHz",
            "over-current 3 times",
            "slowed down by gpu-throttle-alert in 2 samples",
        ];
        assert_eq!(facts, expected);
    }

    #[test]
    fn a_machine_that_reports_nothing_has_no_conditions() {
        let mut watch = BoardWatch::start(Tree::of(&[]).root());
        let sample = watch.sample();
        assert_eq!((sample.celsius, sample.slowed), (None, false));
        assert_eq!(watch.end(), BoardConditions::default());
    }
}
