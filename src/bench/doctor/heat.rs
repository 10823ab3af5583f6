//! Temperatures and thermal throttling.

use super::check::{Check, Topic};
use crate::sysfs::{cpu, thermal, Root};

const HEAT: Topic = Topic {
    name: "heat",
    why: "a hot machine lowers its clocks, after minutes: a short measurement does not see the slow state that a \
          vehicle drives in",
};

/// Distance to a limit, in °C, that a summer day uses up.
const MARGIN: f64 = 10.0;

const REMEDY: &str = "improve the cooling, or lower the frame rate, the input size or the power mode";

pub fn check(root: &Root) -> Check {
    let slowed_by = thermal::slowed_by(root);
    if !slowed_by.is_empty() {
        return HEAT.doubtful(format!("clocks are lowered at this moment by {}", slowed_by.join(", ")), REMEDY);
    }
    if let Some(count @ 1..) = cpu::throttle_count(root) {
        return HEAT.doubtful(format!("CPUs were throttled {count} times since boot"), REMEDY);
    }
    let zones = thermal::zones(root);
    let margin = |zone: &thermal::Zone| zone.limit.map_or(f64::INFINITY, |limit| limit - zone.celsius);
    let Some(nearest) = zones.iter().min_by(|a, b| margin(a).total_cmp(&margin(b))) else {
        return HEAT.good(match cpu::throttle_count(root) {
            Some(_) => "no throttling since boot; temperatures are not reported",
            None => "not reported, as on most virtual machines",
        });
    };
    let limit = nearest.limit.map_or(String::new(), |limit| format!(", limit {limit:.0} °C"));
    let finding = format!("{} at {:.0} °C{limit}", nearest.name, nearest.celsius);
    if margin(nearest) < MARGIN {
        return HEAT.doubtful(finding, REMEDY);
    }
    HEAT.good(finding)
}
