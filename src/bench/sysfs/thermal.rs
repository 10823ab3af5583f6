//! Temperatures, and what the kernel slows down because of them
//! (`Documentation/driver-api/thermal/sysfs-api.rst` of Linux).

use super::{jetson, Root};

const FOLDER: &str = "sys/class/thermal";

/// Trip points of a zone that are read at most.
const MAX_TRIPS: usize = 16;

/// A thermal zone.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    /// Its type, such as `cpu-thermal`.
    pub name: String,
    pub celsius: f64,
    /// The lowest trip point from which the kernel or the hardware slows the machine down or switches it off.
    pub limit: Option<f64>,
}

/// The zones that report a temperature; those of parts that are switched off do not.
pub fn zones(root: &Root) -> Vec<Zone> {
    let zone = |(_, name): (u32, String)| {
        let folder = format!("{FOLDER}/{name}");
        let celsius = |file: &str| degrees(root.number(&format!("{folder}/{file}"))?);
        let trips = (0..MAX_TRIPS).map_while(|i| {
            let kind = root.line(&format!("{folder}/trip_point_{i}_type"))?;
            Some((kind, celsius(&format!("trip_point_{i}_temp"))))
        });
        let limits = trips.filter(|(kind, _)| matches!(kind.as_str(), "passive" | "hot" | "critical"));
        // Trip points of 0 °C and below are unused ones.
        let limit = limits.filter_map(|(_, limit)| limit.filter(|&limit| limit > 0.0)).reduce(f64::min);
        let name = root.line(&format!("{folder}/type")).unwrap_or(name);
        Some(Zone { name, celsius: celsius("temp")?, limit })
    };
    root.numbered(FOLDER, "thermal_zone").into_iter().filter_map(zone).collect()
}

/// Name of the hottest zone, and its temperature, °C.
pub fn hottest(root: &Root) -> Option<(String, f64)> {
    let zones = root.numbered(FOLDER, "thermal_zone").into_iter();
    let celsius = |(_, name): (u32, String)| {
        let celsius = degrees(root.number(&format!("{FOLDER}/{name}/temp"))?)?;
        Some((name, celsius))
    };
    let (name, celsius) = zones.filter_map(celsius).max_by(|(_, a), (_, b)| a.total_cmp(b))?;
    Some((root.line(&format!("{FOLDER}/{name}/type")).unwrap_or(name), celsius))
}

/// Millidegrees as degrees Celsius. `None` beyond what silicon can have: the sensor is off or the file damaged.
fn degrees(millidegrees: i64) -> Option<f64> {
    (-60_000..=200_000).contains(&millidegrees).then_some(millidegrees as f64 / 1e3)
}

/// The cooling devices that slow the machine down at this moment, by type: clocks of CPU and GPU, alerts of the
/// hardware (Jetson: `cpu-throttle-alert`). Fans are not among them.
pub fn slowed_by(root: &Root) -> Vec<String> {
    let active = |(_, name): (u32, String)| {
        let folder = format!("{FOLDER}/{name}");
        let kind = root.line(&format!("{folder}/type"))?;
        (slows_down(&kind) && root.number(&format!("{folder}/cur_state"))? > 0).then_some(kind)
    };
    let mut found: Vec<_> = root.numbered(FOLDER, "cooling_device").into_iter().filter_map(active).collect();
    found.sort();
    found.dedup();
    found
}

fn slows_down(kind: &str) -> bool {
    kind == "Processor"
        || ["cpufreq", "devfreq", "powerclamp"].iter().any(|part| kind.contains(part))
        || jetson::GPUS.iter().any(|gpu| kind.contains(gpu))
        || kind.ends_with("throttle-alert")
        // Xavier and TX2.
        || kind.ends_with("-balanced")
}

#[cfg(test)]
mod tests {
    use super::super::trees::Tree;
    use super::*;

    #[test]
    fn the_hottest_zone_has_its_limit_and_zones_that_are_off_are_left_out() {
        let tree = Tree::of(&[
            ("sys/class/thermal/thermal_zone0/type", "cpu-thermal"),
            ("sys/class/thermal/thermal_zone0/temp", "61500"),
            ("sys/class/thermal/thermal_zone0/trip_point_0_type", "active"),
            ("sys/class/thermal/thermal_zone0/trip_point_0_temp", "50000"),
            ("sys/class/thermal/thermal_zone0/trip_point_1_type", "critical"),
            ("sys/class/thermal/thermal_zone0/trip_point_1_temp", "104500"),
            ("sys/class/thermal/thermal_zone0/trip_point_2_type", "passive"),
            ("sys/class/thermal/thermal_zone0/trip_point_2_temp", "99000"),
            ("sys/class/thermal/thermal_zone1/type", "cv0-thermal"),
            ("sys/class/thermal/thermal_zone1/temp", ""),
            ("sys/class/thermal/thermal_zone2/temp", "-274000"),
            ("sys/class/thermal/thermal_zone3/temp", "2000000000"),
        ]);
        let expected = Zone { name: "cpu-thermal".into(), celsius: 61.5, limit: Some(99.0) };
        assert_eq!(zones(&tree.root()), [expected]);
        assert_eq!(hottest(&tree.root()), Some(("cpu-thermal".into(), 61.5)));
    }

    #[test]
    fn fans_and_resting_devices_do_not_slow_the_machine_down() {
        let device = |i: usize, kind: &'static str, state: &'static str| {
            let folder = format!("sys/class/thermal/cooling_device{i}");
            [(format!("{folder}/type"), kind), (format!("{folder}/cur_state"), state)]
        };
        let devices = [
            device(0, "pwm-fan", "3"),
            device(1, "cpufreq-cpu0", "0"),
            device(2, "gpu-throttle-alert", "1"),
            device(3, "intel_powerclamp", "-1"),
            device(4, "cpufreq-cpu4", "2"),
            device(10, "hot-surface-alert", "1"),
        ];
        let files: Vec<_> = devices.iter().flatten().map(|(path, text)| (path.as_str(), *text)).collect();
        assert_eq!(slowed_by(&Tree::of(&files).root()), ["cpufreq-cpu4", "gpu-throttle-alert"]);
    }
}
