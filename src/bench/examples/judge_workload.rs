//! Judges any workload against a deadline profile: here one that takes 5 ms per frame.
//!
//!     cargo run --release -p peregrine-bench --example judge_workload

use std::time::Duration;

use peregrine_bench::monitor::Monitor;
use peregrine_bench::schedule::{open_loop, RunPlan, Workload};
use peregrine_bench::verdict::judge;
use peregrine_bench::{BenchLayer, DeadlineProfile};
use peregrine_core::now_ns;
use peregrine_pipeline::StageTimes;

struct Sleep;

impl Workload for Sleep {
    fn process(&mut self, _index: usize) -> Option<StageTimes> {
        let start = now_ns();
        std::thread::sleep(Duration::from_millis(5));
        let end = now_ns();
        let times = StageTimes { preprocess_start: start, preprocess_end: start, ..StageTimes::default() };
        Some(StageTimes { inference_end: end, decode_end: end, ..times })
    }
}

fn main() -> anyhow::Result<()> {
    let profile = DeadlineProfile::load("ci")?;
    let plan = RunPlan::fixed(BenchLayer::Engine, &profile);
    let monitor = Monitor::start(vec![std::process::id()]);
    let run = open_loop(&plan, vec![Box::new(Sleep)], &mut ());
    let judgement = judge(&run, &profile, &monitor.stop(), false);
    println!("{}: {}", judgement.verdict.title(), judgement.reasons.join("; "));
    Ok(())
}
