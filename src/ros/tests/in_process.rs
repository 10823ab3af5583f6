//! The real parts of the node in this process, from the arrival of images to publishing: all but
//! the subscription.
#![allow(dead_code, reason = "each test program uses its part")]

use std::path::Path;
use std::sync::{Arc, Once};

use peregrine_core::FrameAccounting;
use peregrine_engine::{ConvWeights, Weights};
use peregrine_ros::frame_path::{CameraOutputs, FramePath};
use peregrine_ros::incoming::ImageMessage;
use peregrine_ros::intake::Arrivals;
use peregrine_ros::live::LiveSettings;
use peregrine_ros::model::{LoadedModel, ModelConfig};
use peregrine_ros::parameters::Parameters;
use peregrine_ros::qos::TopicQos;
use peregrine_ros::realtime::RealtimeProfile;
use peregrine_ros::scene::inputs::SceneInputs;
use peregrine_ros::scene::Scene;
use peregrine_ros::shared::NodeShared;
use peregrine_ros::topics::CameraTopics;
use peregrine_student::{Student, StudentShape};
use r2r::{NativeMsg, ParameterValue, QosProfile};

/// A connection to ROS that nothing outside this process meets.
fn context() -> r2r::Context {
    static ENVIRONMENT: Once = Once::new();
    // Once, since tests run in threads of one process, and each of them reads the environment.
    ENVIRONMENT.call_once(|| {
        std::env::set_var("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST");
        std::env::set_var("ROS_DOMAIN_ID", (1 + std::process::id() % 101).to_string());
    });
    r2r::Context::create().unwrap()
}

pub struct Parts {
    pub path: FramePath,
    /// Of each camera.
    pub arrivals: Vec<Arrivals>,
    pub inputs: Vec<SceneInputs>,
    pub shared: Arc<NodeShared>,
    _node: r2r::Node,
}

// SAFETY: used by one thread at a time; the node sends what it holds to the frame thread, too.
unsafe impl Send for Parts {}

impl Parts {
    /// Of an active node called `name`, whose cameras are called c0, c1 and so on.
    pub fn new(name: &str, cameras: usize, parameters: &Parameters) -> Self {
        let (model, _) = ModelConfig::new(parameters, RealtimeProfile::default()).load().unwrap();
        Self::with_model(name, cameras, parameters, model)
    }

    /// The same with a model on another device.
    pub fn with_model(name: &str, cameras: usize, parameters: &Parameters, model: Box<LoadedModel>) -> Self {
        let mut node = r2r::Node::create(context(), name, "").unwrap();
        let accountings = (0..cameras).map(|_| Arc::new(FrameAccounting::new())).collect();
        let shared = Arc::new(NodeShared::new(accountings, LiveSettings::new(parameters)));
        let (mut outputs, mut inputs) = (Vec::new(), Vec::new());
        for camera in 0..cameras {
            let topic = |topic: &str| format!("c{camera}/{topic}");
            let qos = TopicQos::new(&node, parameters).unwrap();
            let camera = format!("c{camera}");
            let topics = CameraTopics::new(&camera, &qos);
            let (scene, input) = Scene::create(&mut node, parameters, &model.classes, "/image", &topics).unwrap();
            inputs.push(input);
            outputs.push(CameraOutputs {
                detections: node.create_publisher(&topic("detections"), QosProfile::default()).unwrap(),
                timing: node.create_publisher(&topic("timing"), QosProfile::default()).unwrap(),
                road_mask: node.create_publisher(&topic("road_mask"), QosProfile::default()).unwrap(),
                segmentation: node.create_publisher(&topic("segmentation"), QosProfile::default()).unwrap(),
                scene_class: node.create_publisher(&topic("scene"), QosProfile::default()).unwrap(),
                scene,
                deadlines: Default::default(),
                levels: Default::default(),
                smoother: Default::default(),
            });
        }
        let at_source = parameters.text("mask_resolution") == "source";
        let mut path = FramePath::new(model, outputs, Arc::clone(&shared), at_source);
        path.gpu_cameras_at_once = parameters.count("gpu_cameras_at_once");
        let mut arrivals: Vec<_> = (0..cameras).map(|camera| Arrivals::new(camera, Arc::clone(&shared))).collect();
        arrivals.iter_mut().for_each(|a| a.set_active(true));
        Self { path, arrivals, inputs, shared, _node: node }
    }
}

/// The defaults with the smallest network that there is, on one thread, and with `more`.
pub fn small(more: impl IntoIterator<Item = (&'static str, ParameterValue)>) -> Parameters {
    let smallest = [("input_width", 32), ("input_height", 32), ("threads", 1)];
    let smallest = smallest.map(|(name, value)| (name, ParameterValue::Integer(value)));
    let all = smallest.into_iter().chain(more);
    Parameters::with(all.map(|(name, value)| (name.to_owned(), value))).unwrap()
}

/// Saves a student of boxes, masks and scenes, with small weights.
pub fn save_with_scenes(folder: &Path) {
    let heads = r#"{"size": "n", "classes": ["car"], "segmentation": ["road", "sky"],
                    "scene": {"light": ["day", "night"], "weather": ["dry", "rain", "snow"]}}"#;
    let shape: StudentShape = serde_json::from_str(heads).unwrap();
    let mut student = Student::embedded();
    student.manifest.architecture = shape.architecture(None).unwrap();
    let weight = |i: usize| (i * 7919 % 13) as f32 * 0.02 - 0.12;
    let conv = |shape: [usize; 4]| ConvWeights {
        weight: (0..shape.iter().product()).map(weight).collect(),
        bias: vec![0.1; shape[0]],
    };
    let graph = student.graph();
    student.weights = Weights(graph.convs().map(|(layer, _, shape)| (layer.name.clone(), conv(shape))).collect());
    student.save(folder).unwrap();
}

/// A grey image of 32x32 with a stamp in nanoseconds.
pub fn image(stamp: i64, encoding: &str) -> ImageMessage {
    let mut message = NativeMsg::<r2r::sensor_msgs::msg::Image>::new();
    message.header.stamp.sec = (stamp.div_euclid(1_000_000_000)) as i32;
    message.header.stamp.nanosec = stamp.rem_euclid(1_000_000_000) as u32;
    message.encoding.assign(encoding);
    (message.width, message.height, message.step) = (32, 32, 32);
    message.data.update(&[127u8; 32 * 32]);
    ImageMessage::Raw(message, Default::default())
}
