//! The outputs of the node besides detections, received by a Python node over the middleware.

use serde_json::Value;

use crate::support::{integer, ros_is_absent, Domain};

fn list<'a>(value: &'a Value, key: &str) -> &'a Vec<Value> {
    value[key].as_array().unwrap_or_else(|| panic!("{key} of {value}"))
}

#[test]
fn with_camera_info_and_mounting_every_output_is_published() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let parameters = ["mounting:='0 0 5.0 0 0.35 0'", "mask_resolution:=source", "deadline_ms:=0.0"];
    let _node = domain.start_node(&parameters);
    let answer = domain.ask_peer("receive_scene.py", &[]);

    // Tracks, and detections with their identities.
    let tracks = list(&answer, "tracks");
    let known: Vec<_> = tracks.iter().map(|t| integer(t, "id").to_string()).collect();
    assert!(!known.is_empty());
    for track in tracks {
        let covariance: Vec<_> = list(track, "covariance").iter().map(|v| v.as_f64().unwrap()).collect();
        assert!((0..4).all(|i| covariance[5 * i] > 0.0), "{track}");
        assert!(integer(track, "age") >= 2 && integer(track, "missed") >= 0);
    }
    let detections = list(&answer, "detections");
    let identities: Vec<_> = detections.iter().filter_map(|d| d["id"].as_str()).filter(|id| !id.is_empty()).collect();
    assert!(!identities.is_empty() && identities.iter().all(|id| known.iter().any(|k| k == id)), "{identities:?}");

    // Mask, table and pictures.
    let size = [&answer["sent"]["width"], &answer["sent"]["height"]];
    for of in [&answer["mask"], &answer["picture"]["raw"], &answer["picture"]["compressed"]] {
        assert_eq!([&of[0], &of[1]], size);
    }
    assert_eq!((&answer["labels"]["3"], &answer["picture"]["frame_id"]), (&"road".into(), &"front".into()));
    assert_eq!(answer["picture"]["changed"], true);

    // The ground, after a calibration with NaN was refused.
    assert!(
        answer["refused"].as_str().unwrap().starts_with("off: CameraInfo.k[4] (fy) is NaN"),
        "{}",
        answer["refused"]
    );
    assert!(answer["ground"].as_str().unwrap().starts_with("on: "), "{}", answer["ground"]);
    let objects = list(&answer["objects"], "each");
    assert_eq!(answer["objects"]["frame_id"], "base_link");
    assert!(!objects.is_empty());
    for object in objects {
        let (x, covariance) = (object["x"].as_f64().unwrap(), list(object, "covariance"));
        assert!(x > 0.0 && x < 80.0, "{object}");
        assert!(covariance[0].as_f64().unwrap() > 0.0 && covariance[7].as_f64().unwrap() > 0.0, "{object}");
        assert!(object["size"][1].as_f64().unwrap() > 0.0 && object["size"][2].as_f64().unwrap() > 0.0, "{object}");
    }
    assert_eq!(list(&answer, "markers").len(), 1 + 3 * objects.len());
    let map = &answer["map"];
    assert_eq!((&map["frame_id"], &map["size"]), (&"base_link".into(), &serde_json::json!([200, 100])));
    let cells = map["cells"].as_object().unwrap();
    assert!(cells.contains_key("-1") && cells.contains_key("0"), "{map}");
    assert!(cells.keys().all(|k| ["-1", "0", "100"].contains(&k.as_str())), "{map}");
}

#[test]
fn without_camera_info_nothing_is_placed_and_diagnostics_say_why() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let _node = domain.start_node(&["mounting:='0 0 5.0 0 0.35 0'", "deadline_ms:=0.0"]);
    let answer = domain.ask_peer("receive_scene.py", &["without_camera_info"]);
    assert_eq!(integer(&answer, "placed"), 0);
    let ground = answer["ground"].as_str().unwrap();
    assert!(ground.starts_with("no CameraInfo has arrived on /camera_info"), "{ground}");
    assert!(!list(&answer, "tracks").is_empty());
}

#[test]
fn an_invalid_mounting_is_named_at_start() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let mut command = domain.command(crate::support::NODE);
    command.args(["--ros-args", "-p", "mounting:='1 2 3'"]);
    let output = command.output().expect("the node can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("'mounting' must be six numbers"), "{said}");
}

#[test]
fn each_camera_uses_its_own_mounting() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    // Both get the same image; the rear camera looks backwards, from behind the vehicle, with its
    // own calibration.
    let parameters = [
        "cameras:=front,rear",
        "mounting:='0 0 5.0 0 0.35 0'",
        "rear.mounting:='-4 0 5.0 0 0.35 3.141592653589793'",
        "rear.camera_info_topic:=calibration",
        "rear.ground_frame:=rear_axle",
        "deadline_ms:=0.0",
    ];
    let node = domain.start_node(&parameters);
    let answer = domain.ask_peer("receive_two_mountings.py", &[]);
    let at = |camera: &str| -> Vec<[f64; 2]> {
        let positions = list(&answer[camera], "at").iter();
        positions.map(|p| [p[0].as_f64().unwrap(), p[1].as_f64().unwrap()]).collect()
    };
    let (front, rear) = (at("front"), at("rear"));
    assert_eq!(front.len(), rear.len());
    for (f, r) in front.iter().zip(&rear) {
        assert!((r[0] - (-4.0 - f[0])).abs() < 1e-6 && (r[1] + f[1]).abs() < 1e-6, "{f:?} and {r:?}");
    }
    assert_eq!((&answer["front"]["frame_id"], &answer["rear"]["frame_id"]), (&"base_link".into(), &"rear_axle".into()));
    assert_eq!(node.end("-INT").0, Some(0));
}

#[test]
fn a_parameter_for_an_unknown_camera_is_named_at_start() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let mut command = domain.command(crate::support::NODE);
    command.args(["--ros-args", "-p", "cameras:=front,rear", "-p", "raer.mounting:='0 0 5.0 0 0.35 0'"]);
    let output = command.output().expect("the node can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("'raer.mounting' is for an unknown camera"), "{said}");
}
