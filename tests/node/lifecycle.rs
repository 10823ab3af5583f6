//! The node as a managed node, driven by the services that `ros2 lifecycle` and launch_ros use.

use serde_json::{json, Value};

use peregrine_reference::random_weights;
use peregrine_student::{Student, StudentShape};

use crate::support::*;

/// A student of other classes than the embedded one's, which sees a cone in every coarse cell.
pub fn save_cone_finder(folder: &std::path::Path) {
    let names = |names: [&str; 2]| Some(names.map(str::to_owned).into());
    let shape = StudentShape {
        classes: names(["cone", "forklift"]),
        segmentation: names(["floor", "rack"]),
        input: Some([64, 64]),
        ..StudentShape::default()
    };
    let mut student = Student::embedded();
    student.manifest.architecture = shape.architecture(None).unwrap();
    student.manifest.name = "cones".into();
    student.weights = random_weights(&student.graph(), 1);
    for stride in [8, 16, 32] {
        let class = student.weights.0.get_mut(&format!("detect.{stride}.class")).unwrap();
        class.weight.fill(0.0);
        class.bias = vec![if stride == 32 { 2.0 } else { -9.0 }, -9.0];
    }
    student.save(folder).unwrap();
}

#[test]
fn a_managed_node_follows_the_lifecycle_of_the_ros2_design() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let node = domain.start_node(&["autostart:=false"]);
    let a = domain.ask_peer("walk_lifecycle.py", &[]);
    let reference: Value = serde_json::from_str(include_str!("../reference/lifecycle_states.json")).unwrap();
    assert_eq!(a["at_start"], json!([1, "unconfigured"]));
    for key in ["states", "graph"] {
        assert_eq!(a[key], reference[key], "{key}");
    }
    assert_eq!(a["available"], reference["available_at_start"]);
    for refused in a["impossible"].as_array().unwrap() {
        assert_eq!(*refused, json!([false, "unconfigured"]));
    }
    assert_eq!(a["configured"], json!([true, "inactive"]));
    assert_eq!(a["arrived_while_inactive"], 0);
    assert_eq!(a["active"], json!([true, "active"]));
    assert_eq!(a["first_sequence"], 1);
    assert_eq!(a["inactive"], json!([true, "inactive"]));
    assert_eq!((&a["lost_while_inactive"], &a["in_flight_while_inactive"]), (&json!(0), &json!(0)));
    assert_eq!(a["clean"], json!([true, "unconfigured"]));
    assert_eq!(a["again"], json!([[true, "inactive"], [true, "active"]]));
    assert_eq!(a["counts_go_on"], true);
    assert_eq!(a["finalized"], json!([true, "finalized"]));
    assert_eq!(a["available_at_the_end"], json!([]));
    let there_and_back = [
        ["unconfigured", "configuring"],
        ["configuring", "inactive"],
        ["inactive", "activating"],
        ["activating", "active"],
        ["active", "deactivating"],
        ["deactivating", "inactive"],
        ["inactive", "cleaningup"],
        ["cleaningup", "unconfigured"],
        ["unconfigured", "configuring"],
        ["configuring", "inactive"],
        ["inactive", "activating"],
        ["activating", "active"],
        ["active", "shuttingdown"],
        ["shuttingdown", "finalized"],
    ];
    assert_eq!(a["events"], json!(there_and_back));
    assert_eq!(node.end("-INT").0, Some(0));
}

#[test]
fn configuring_with_an_invalid_model_or_parameter_fails() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let node = domain.start_node(&["autostart:=false", "model:=/no/such/folder", "nms_iou:=7.0"]);
    let a = domain.ask_peer("configure_invalid.py", &[]);
    assert_eq!(a["parameter"], json!([false, "unconfigured"]));
    assert_eq!(a["parameter_problem"][0], 2);
    let reason = a["parameter_problem"][1].as_str().unwrap();
    assert!(reason.contains("'nms_iou' must be a number from 0 to 1, not 7.0"), "{reason}");
    assert_eq!(a["model"], json!([false, "unconfigured"]));
    let reason = a["model_problem"][1].as_str().unwrap();
    assert!(reason.contains("/no/such/folder/manifest.json"), "{reason}");
    assert_eq!(a["set_model"], json!([true, ""]));
    assert_eq!(a["corrected"], json!([[true, "inactive"], [true, "active"]]));
    assert_eq!(node.end("-TERM").0, Some(0));
}

#[test]
fn a_model_change_while_streaming_loses_no_frame() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let node = domain.start_node(&["deadline_ms:=0.0"]);
    let good = concat!(env!("CARGO_MANIFEST_DIR"), "/models/peregrine-s");
    let other = tempfile::tempdir().unwrap();
    save_cone_finder(other.path());
    let a = domain.ask_peer("change_model.py", &[good, "/no/such/folder", other.path().to_str().unwrap()]);
    assert_eq!(a["bad"][0], false);
    let reason = a["bad"][1].as_str().unwrap();
    assert!(reason.contains("/no/such/folder/manifest.json"), "{reason}");
    assert_eq!(a["good"], json!([true, ""]));
    assert_eq!(a["other"], json!([true, ""]), "a model of other classes");
    assert_eq!(a["labels_before"]["detection_label_info"][0], "person");
    let names = json!({"detection_label_info": ["cone", "forklift"], "label_info": ["floor", "rack"]});
    assert_eq!((&a["labels_after"], &a["classes_after"]), (&names, &json!(["cone"])));
    assert!(a["sent_meanwhile"].as_u64().unwrap() > 0, "images were sent while the model was loaded");
    assert_counts_add_up(&a["diagnostics"], 0);
    assert_eq!(integer(&a["diagnostics"], "rejected"), 0);
    assert_eq!(a["last_sequence"], integer(&a["diagnostics"], "arrived"), "numbers and counts are not begun anew");
    assert_eq!(a["state"], json!([3, "active"]));
    let line = node.end("-INT").1;
    assert!(line.contains(", 0 rejected, 0 in flight"), "{line}");
}

/// Keys could only be tried with a middleware that has security; the wheels' has none.
#[test]
fn a_node_that_cannot_have_security_ends_and_says_so() {
    if ros_is_absent() {
        return;
    }
    let keystore = tempfile::tempdir().unwrap();
    for enclaves in [false, true] {
        if enclaves {
            std::fs::create_dir(keystore.path().join("enclaves")).unwrap();
        }
        let domain = Domain::new();
        let mut command = domain.command(NODE);
        command.env("ROS_SECURITY_ENABLE", "true").env("ROS_SECURITY_STRATEGY", "Enforce");
        let output = command.env("ROS_SECURITY_KEYSTORE", keystore.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("ROS_SECURITY_KEYSTORE must hold an enclave for this node"), "{said}");
    }
}
