//! The node under systemd: the unit that is shipped, and a systemd that is process 1 of a namespace.

use std::process::Stdio;

use peregrine_support::{root, skip};
use serde_json::json;

use crate::support::*;

#[test]
fn systemd_restarts_a_node_that_hangs_and_ends_it_well() {
    if ros_is_absent() {
        return;
    }
    let process_1 = std::fs::read_to_string("/proc/1/comm").unwrap_or_default();
    if process_1.trim() == "systemd" {
        // Both would keep their processes in the same control groups.
        return skip("systemd", "a systemd runs here; the test starts its own where there is none, in a container");
    }
    let folder = tempfile::tempdir().unwrap();
    let answer = folder.path().join("answer.json");
    // Its times are limits of the unit, not of this test.
    let domain = Domain::alone();
    let mut command = domain.command("bash");
    command.arg(root().join("tests/peer/systemd.sh")).arg(root().join("packaging/peregrine.service"));
    let output = command.arg(NODE).arg(&answer).stdout(Stdio::null()).output().unwrap();
    assert_ne!(output.status.code(), Some(137), "it ends within two minutes");
    let Ok(text) = std::fs::read_to_string(&answer) else {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return skip("systemd", &format!("systemd does not start in a namespace: {}", said.trim()));
    };
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    let expected = json!({
        "type": "notify", "started": true, "restarted": true, "restarts": 1, "another": true, "result": "success", "code": 0,
    });
    assert_eq!(found, expected);
}
