//! The highest frame rate at which the deadline is met, by bisection.

use serde::Serialize;

use super::verdict::Verdict;

/// The search ends when the bounds are this close, relative to the rate.
const RESOLUTION: f64 = 0.02;

/// Most measurements of a search.
const MAX_PROBES: usize = 16;

/// A rate that was tried, and its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RateProbe {
    pub rate_hz: f64,
    pub verdict: Verdict,
}

/// Searches `low` to `high` (Hz) for the highest rate at which `measure` returns [`Verdict::Met`],
/// within 2 %. Returns all rates tried, in order. Assumes that a rate above a failing one fails as
/// well.
///
/// # Errors
/// Those of `measure`.
pub fn search<E>(low: f64, high: f64, mut measure: impl FnMut(f64) -> Result<Verdict, E>) -> Result<Vec<RateProbe>, E> {
    let (mut low, mut high, mut probes) = (low, high, vec![]);
    let mut rate = high;
    while probes.len() < MAX_PROBES {
        let verdict = measure(rate)?;
        probes.push(RateProbe { rate_hz: rate, verdict });
        match verdict {
            Verdict::Met if probes.len() == 1 => break,
            Verdict::Met => low = rate,
            Verdict::Missed | Verdict::NotProvable => high = rate,
        }
        if high - low <= RESOLUTION * high {
            break;
        }
        rate = 0.5 * (low + high);
    }
    Ok(probes)
}

/// The highest rate that was met.
pub fn best(probes: &[RateProbe]) -> Option<f64> {
    probes.iter().filter(|p| p.verdict == Verdict::Met).map(|p| p.rate_hz).reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::monitor::Conditions;
    use crate::simulation::{profile, simulate};
    use crate::verdict::judge;
    use crate::DeadlineProfile;

    fn met_up_to(limit: f64) -> impl FnMut(f64) -> Result<Verdict, ()> {
        move |rate| Ok(if rate <= limit { Verdict::Met } else { Verdict::Missed })
    }

    #[test]
    fn a_range_that_is_met_throughout_takes_one_probe() {
        assert_eq!(search(1.0, 50.0, met_up_to(60.0)).unwrap().len(), 1);
    }

    #[test]
    fn a_range_that_is_never_met_has_no_best_rate() {
        assert_eq!(best(&search(1.0, 50.0, met_up_to(0.1)).unwrap()), None);
    }

    #[test]
    fn work_of_seven_milliseconds_sustains_142_hertz() {
        // Above that, frames wait longer and longer until they are superseded.
        let found = search::<()>(10.0, 400.0, |rate_hz| {
            let profile = DeadlineProfile { rate_hz, deadline_ms: 12.0, max_miss_ratio: 0.02, ..profile(1000) };
            let run = simulate(&profile, |_| Some([1, 5, 1]));
            Ok(judge(&run, &profile, &Conditions::default(), false).verdict)
        });
        let best = best(&found.unwrap()).unwrap();
        assert!((1000.0 / 7.0 * 0.98..=1000.0 / 7.0 + 0.1).contains(&best), "{best}");
    }

    proptest! {
        #[test]
        fn the_best_rate_is_found_to_two_percent(limit in 5.0f64..1000.0) {
            let best = best(&search(1.0, 1000.0, met_up_to(limit)).unwrap()).unwrap();
            prop_assert!(best <= limit && best >= 0.975 * limit, "{best} of {limit}");
        }
    }
}
