//! The node at 30 Hz among the faults of cameras, networks and clocks, for as long as is asked for:
//! `make soak TIME=3600`.

use crate::support::*;

/// How long, in seconds; without it one round through the faults.
const SECONDS: &str = "PEREGRINE_SOAK_SECONDS";

/// Resident memory at the end over that after the warm-up of ten minutes, at most.
const MOST_GROWTH: f64 = 1.01;

#[test]
fn among_faults_the_node_recovers_keeps_its_account_and_does_not_grow() {
    if ros_is_absent() {
        return;
    }
    let seconds = std::env::var(SECONDS).unwrap_or_else(|_| "20".into());
    let domain = Domain::alone();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/models/peregrine-s");
    let other = tempfile::tempdir().expect("a folder for another model");
    crate::lifecycle::save_cone_finder(other.path());
    // Late frames are published, too: those with the stamps of a clock that is an hour behind.
    let node = domain.start_node(&["deadline_ms:=0.0", &format!("model:={model}")]);
    let pid = node.0.id().to_string();
    let result = domain.ask_peer("soak.py", &[&seconds, &pid, model, &other.path().display().to_string()]);
    println!("{result:#}");

    let recoveries = result["recoveries_ms"].as_object().unwrap();
    assert!(recoveries.len() > 5, "{recoveries:?}");
    // On a busy machine an answer alone takes long.
    let limit = 1000.0f64.max(30.0 * real(&recoveries["a subscriber stalled"], "median"));
    for (fault, times) in recoveries.iter().filter(|(fault, _)| *fault != "start") {
        assert!(real(times, "max") <= limit, "after {fault} recovery took {times} ms");
    }
    assert_eq!(result["accounts_amiss"], serde_json::json!([]));
    assert_counts_add_up(&result["diagnostics"], 0);
    assert!(integer(&result["diagnostics"], "rejected") > 0);
    if let Some(growth) = result["resident_growth_after_warm_up"].as_f64() {
        assert!(growth <= MOST_GROWTH, "resident memory grew to {growth} of what it was after the warm-up");
    }
    assert_eq!(node.end("-INT").0, Some(0));
}
