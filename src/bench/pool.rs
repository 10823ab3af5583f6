//! Several runs of one set-up, pooled into one claim about its miss ratio.
//!
//! Frames and misses are added, and bursts looked for in all runs together. Runs that differ from
//! each other by more than chance (χ² test of homogeneity) have their variation between runs in the
//! claim as well: the effective number of frames is divided by its upper bound, so that two runs that
//! disagree claim next to nothing.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::bursts::{bursts_of, excess_dispersion, without_bursts, Bursts};
use super::profile::DeadlineProfile;
use super::record::BenchOutcome;
use super::stats::{frames_needed, miss_ratio_bound_of};
use super::stored::{self, StoredError, StoredMachine, StoredSubject};
use super::verdict::{bound_is_within, percent, too_many_missed, Verdict};

/// Why results cannot be pooled.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    #[error(transparent)]
    Stored(#[from] StoredError),
    #[error("{second} differs from {first} in its {what}: a claim is of one set-up, so leave one of them out")]
    Differs { first: PathBuf, second: PathBuf, what: &'static str },
    #[error("{second} holds the same frames as {first}: give each run once")]
    Twice { first: PathBuf, second: PathBuf },
    #[error("{path}: {why}, so it is no run to be pooled")]
    NoRun { path: PathBuf, why: &'static str },
}

/// The fields of a result that are pooled.
#[derive(Debug, Deserialize)]
struct StoredRun {
    profile: DeadlineProfile,
    layer: String,
    schedule: String,
    cameras: usize,
    subject: StoredSubject,
    machine: StoredMachine,
    injected: Vec<String>,
    stress: Vec<String>,
    judgement: Option<StoredJudgement>,
    frames: StoredFrames,
}

#[derive(Debug, Deserialize)]
struct StoredJudgement {
    verdict: Verdict,
    reasons: Vec<String>,
    longest_miss_run: usize,
}

#[derive(Debug, Deserialize, PartialEq)]
struct StoredFrames {
    scheduled_us: Vec<f64>,
    latency_us: Vec<Option<f64>>,
    fate: Vec<BenchOutcome>,
}

/// One run of a pool.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PooledRun {
    pub path: PathBuf,
    pub verdict: Verdict,
    pub frames: usize,
    pub misses: usize,
}

/// The claim of a pool.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pool {
    pub verdict: Verdict,
    /// Sentences, the decisive one first.
    pub reasons: Vec<String>,
    pub runs: Vec<PooledRun>,
    pub frames: usize,
    pub misses: usize,
    pub miss_ratio: f64,
    /// At the profile's confidence.
    pub miss_ratio_bound: f64,
    /// The independent frames that the bound is of.
    pub effective_frames: f64,
    /// Bursts of misses or of the slowest frames within the runs.
    pub bursts: Option<Bursts>,
    /// Upper bound of the dispersion of misses between the runs, if they differ by more than chance.
    pub between_runs: Option<f64>,
}

/// Pools the results in `paths`.
///
/// # Errors
/// When a file is no finished run, is given twice, or was measured with another set-up.
pub fn pool(paths: &[PathBuf]) -> Result<Pool, PoolError> {
    let runs = paths.iter().map(|path| Ok((path.as_path(), stored::read::<StoredRun>(path)?)));
    let runs: Vec<(&Path, StoredRun)> = runs.collect::<Result<_, PoolError>>()?;
    for (i, run) in runs.iter().enumerate() {
        is_whole(run)?;
        runs[..i].iter().try_for_each(|before| are_alike(before, run))?;
    }
    Ok(claim(&runs))
}

fn is_whole((path, run): &(&Path, StoredRun)) -> Result<(), PoolError> {
    let frames = &run.frames;
    let why = if run.judgement.is_none() {
        "it was measured in a closed loop, without a deadline"
    } else if !run.injected.is_empty() {
        "faults were injected into it"
    } else if frames.fate.len() < run.profile.frames * run.cameras {
        "it was interrupted"
    } else if frames.scheduled_us.len() != frames.fate.len() || frames.latency_us.len() != frames.fate.len() {
        "its columns of frames differ in length"
    } else {
        return Ok(());
    };
    Err(PoolError::NoRun { path: path.to_path_buf(), why })
}

fn are_alike((first, a): &(&Path, StoredRun), (second, b): &(&Path, StoredRun)) -> Result<(), PoolError> {
    let (first, second) = (first.to_path_buf(), second.to_path_buf());
    if a.frames == b.frames {
        return Err(PoolError::Twice { first, second });
    }
    // Runs may be of different lengths.
    let of_equal_length = DeadlineProfile { frames: b.profile.frames, ..a.profile.clone() };
    let checks = [
        (of_equal_length == b.profile, "profile"),
        (a.layer == b.layer, "layer"),
        (a.schedule == b.schedule && a.cameras == b.cameras, "schedule or number of cameras"),
        (a.subject == b.subject, "model, input, device, threads, tracking or priority"),
        (a.machine == b.machine, "machine"),
        (a.stress == b.stress, "background load"),
    ];
    match checks.into_iter().find(|(alike, _)| !alike) {
        Some((_, what)) => Err(PoolError::Differs { first, second, what }),
        None => Ok(()),
    }
}

/// Of runs that are whole and alike.
fn claim(runs: &[(&Path, StoredRun)]) -> Pool {
    let pooled: Vec<PooledRun> = runs.iter().map(|(path, run)| pooled(path, run)).collect();
    let (mut missed, mut latencies) = (Vec::new(), Vec::new());
    for (_, run) in runs {
        // All cameras together, by time.
        let mut order: Vec<usize> = (0..run.frames.fate.len()).collect();
        order.sort_by(|&a, &b| run.frames.scheduled_us[a].total_cmp(&run.frames.scheduled_us[b]));
        missed.extend(order.iter().map(|&i| run.frames.fate[i] != BenchOutcome::OnTime));
        latencies.extend(order.iter().map(|&i| run.frames.latency_us[i].map_or(u64::MAX, |us| us as u64)));
    }
    let (frames, misses) = (missed.len(), missed.iter().filter(|&&m| m).count());
    let bursts = bursts_of(&missed, &latencies);
    let between = excess_dispersion(pooled.iter().map(|run| (run.misses as f64, run.frames as f64)));
    let worth = bursts.map_or(1.0, |b| b.dispersion).max(between.unwrap_or(1.0));
    let mut pool = Pool {
        verdict: Verdict::NotProvable,
        reasons: Vec::new(),
        miss_ratio: misses as f64 / frames.max(1) as f64,
        miss_ratio_bound: 1.0,
        effective_frames: frames as f64 / worth,
        runs: pooled,
        frames,
        misses,
        bursts,
        between_runs: between,
    };
    let profile = &runs[0].1.profile;
    pool.miss_ratio_bound = miss_ratio_bound_of(misses as f64 / worth, pool.effective_frames, profile.confidence);
    judge(&mut pool, runs, profile);
    pool
}

fn pooled(path: &Path, run: &StoredRun) -> PooledRun {
    PooledRun {
        path: path.to_owned(),
        verdict: run.judgement.as_ref().map_or(Verdict::NotProvable, |j| j.verdict),
        frames: run.frames.fate.len(),
        misses: run.frames.fate.iter().filter(|&&fate| fate != BenchOutcome::OnTime).count(),
    }
}

fn judge(pool: &mut Pool, runs: &[(&Path, StoredRun)], profile: &DeadlineProfile) {
    let (allowed, bound) = (profile.max_miss_ratio, pool.miss_ratio_bound);
    // What a run alone may not do: misses in a row, a drift, a growth of memory.
    let failed = |(path, run): &(&Path, StoredRun)| {
        let judgement = run.judgement.as_ref()?;
        let excused = judgement.verdict == Verdict::NotProvable && judgement.longest_miss_run > profile.max_miss_run;
        let counts = judgement.verdict == Verdict::Missed || excused;
        counts.then(|| {
            (excused, format!("{}: {}", path.display(), judgement.reasons.first().cloned().unwrap_or_default()))
        })
    };
    let failures: Vec<(bool, String)> = runs.iter().filter_map(failed).collect();
    let too_many = pool.miss_ratio > allowed;
    pool.verdict = if failures.iter().any(|(excused, _)| !excused) || too_many && failures.is_empty() {
        Verdict::Missed
    } else if failures.is_empty() && bound <= allowed {
        Verdict::Met
    } else {
        Verdict::NotProvable
    };
    let claim = match pool.verdict {
        Verdict::Met => bound_is_within(bound, profile),
        _ if too_many => too_many_missed(pool.misses, pool.frames, profile),
        _ => format!("the miss ratio may be up to {}; at most {} is allowed", percent(bound), percent(allowed)),
    };
    pool.reasons.push(claim);
    pool.reasons.extend(failures.into_iter().map(|(_, reason)| reason));
    pool.reasons.push(pool.bursts.map_or_else(|| without_bursts(pool.frames), |bursts| bursts.sentence(pool.frames)));
    if let Some(dispersion) = pool.between_runs {
        pool.reasons.push(format!(
            "the runs differ by more than chance (dispersion up to {dispersion:.1}): what differs between them is part of \
             the claim, and more runs narrow it"
        ));
    }
    if pool.verdict == Verdict::NotProvable && !too_many && pool.between_runs.is_none() {
        let worth = pool.frames as f64 / pool.effective_frames;
        let needed = frames_needed((pool.misses as f64 / worth).ceil() as usize, allowed, profile.confidence);
        pool.reasons.push(format!("it takes {:.0} frames like these", needed as f64 * worth));
    }
}

impl Pool {
    /// Human-readable; ends with a line break.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for run in &self.runs {
            let ratio = percent(run.misses as f64 / run.frames.max(1) as f64);
            let _ = writeln!(
                out,
                "run       {}: {} of {} frames missed ({ratio}), {}",
                run.path.display(),
                run.misses,
                run.frames,
                run.verdict.title()
            );
        }
        let _ = writeln!(
            out,
            "pool      {} of {} frames missed ({}), worth {:.0} independent frames",
            self.misses,
            self.frames,
            percent(self.miss_ratio),
            self.effective_frames
        );
        let _ = writeln!(out, "verdict   {}", self.verdict.title());
        self.reasons.iter().for_each(|reason| {
            let _ = writeln!(out, "          {reason}");
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, Value};

    use super::*;

    /// A result of `frames` frames, of which every `every`th missed; `change` makes it another.
    fn result(frames: usize, every: usize, change: impl Fn(&mut Value)) -> Value {
        let profile = DeadlineProfile { frames, ..DeadlineProfile::load("low_power_10hz").unwrap() };
        let missed = |i: &usize| i % every == every - 1;
        let fate = |i: usize| if missed(&i) { "late" } else { "on_time" };
        // Latencies in no order, and different ones in each result.
        let latency = |i: usize| 5000.0 + ((i * 7919 + every) % 9973) as f64;
        let mut value = json!({
            "schema_version": 2, "profile": profile, "layer": "pipeline", "schedule": "fixed", "cameras": 1,
            "subject": {"weights_sha256": "x", "input_width": 1, "input_height": 1, "threads": 1},
            "machine": {"cpu_model": "c", "kernel": "k"}, "injected": [], "stress": [],
            "judgement": {"verdict": "not_provable", "reasons": ["too few"], "longest_miss_run": 1},
            "frames": {
                "scheduled_us": (0..frames).map(|i| i as f64 * 1e5).collect::<Vec<_>>(),
                "latency_us": (0..frames).map(latency).collect::<Vec<_>>(),
                "fate": (0..frames).map(fate).collect::<Vec<_>>(),
            },
        });
        change(&mut value);
        value
    }

    fn pooled(results: &[Value]) -> Result<Pool, PoolError> {
        let folder = tempfile::tempdir().unwrap();
        let path = |(i, value): (usize, &Value)| {
            let path = folder.path().join(format!("{i}.json"));
            std::fs::write(&path, value.to_string()).unwrap();
            path
        };
        pool(&results.iter().enumerate().map(path).collect::<Vec<_>>())
    }

    fn same(_: &mut Value) {}

    #[test]
    fn runs_that_are_too_short_alone_prove_it_together() {
        let never = |i: usize| 100_000 + i;
        let results = [0, 1, 2].map(|i| result(200, never(i), same));
        assert_eq!(pooled(&results[..2]).unwrap().verdict, Verdict::NotProvable);
        let pool = pooled(&results).unwrap();
        assert_eq!((pool.verdict, pool.frames, pool.misses), (Verdict::Met, 600, 0), "{}", pool.text());
        assert!(pool.text().contains("99 % confidence") && pool.text().contains("0 of 200 frames missed"));
    }

    #[test]
    fn runs_that_differ_claim_less_than_their_frames() {
        // 1 of 4000 misses in one, 20 in the other.
        let results = [result(4000, 4000, same), result(4000, 200, same)];
        let pool = pooled(&results).unwrap();
        assert_eq!(pool.verdict, Verdict::NotProvable, "{}", pool.text());
        assert!(pool.between_runs.is_some_and(|d| d > 10.0) && pool.effective_frames < 800.0, "{pool:?}");
        assert!(pool.miss_ratio < 0.003 && pool.miss_ratio_bound > 0.01);
    }

    #[test]
    fn more_misses_than_are_allowed_and_a_run_that_failed_are_missed() {
        let pool = pooled(&[result(800, 50, same), result(800, 49, same)]).unwrap();
        assert_eq!(pool.verdict, Verdict::Missed);
        assert!(pool.reasons[0].contains("32 of 1600 frames missed (2 %); at most 1 % may"), "{:?}", pool.reasons);
        let drifted = |v: &mut Value| {
            v["judgement"] = json!({"verdict": "missed", "reasons": ["it drifted"], "longest_miss_run": 0})
        };
        let pool = pooled(&[result(800, 9000, same), result(800, 9001, drifted)]).unwrap();
        assert_eq!(pool.verdict, Verdict::Missed);
        assert!(pool.reasons[1].ends_with("1.json: it drifted"), "{:?}", pool.reasons);
    }

    #[test]
    fn what_is_no_run_of_one_set_up_is_refused_by_name() {
        let refused = |second: Value, words: &str| {
            let error = pooled(&[result(300, 100, same), second]).unwrap_err().to_string();
            assert!(error.contains("1.json") && error.contains(words), "{error}");
        };
        refused(result(300, 100, same), "the same frames as");
        refused(result(300, 99, |v| v["machine"]["kernel"] = json!("other")), "in its machine");
        refused(result(300, 99, |v| v["profile"]["deadline_ms"] = json!(50.0)), "in its profile");
        refused(result(300, 99, |v| v["subject"]["threads"] = json!(2)), "threads");
        refused(result(300, 99, |v| v["profile"]["frames"] = json!(301)), "it was interrupted");
        refused(result(300, 99, |v| v["injected"] = json!(["900@50"])), "faults were injected");
        refused(result(300, 99, |v| v["judgement"] = Value::Null), "closed loop");
        refused(json!({"schema_version": 1}), "schema version 1");
    }
}
