//! Every parameter of the node, declared once.
//!
//! Besides these there are the `qos_overrides`, whose names depend on the topics: see [`qos`].
//!
//! From [`DECLARATIONS`] come the ROS descriptors, the checks at start and at `ros2 param set`, what
//! `perception_node --list-parameters` prints, and the README's table.

use r2r::ParameterValue;

use super::qos;

/// One parameter: its name, what it may be, whether it may change while the node runs, and what it does.
#[derive(Debug, Clone, Copy)]
pub struct Declaration {
    pub name: &'static str,
    pub domain: Domain,
    /// Whether it may be set at any time; otherwise only while the node is not configured.
    pub live: bool,
    pub description: &'static str,
}

/// The type, the default and the permitted values of a parameter. Bounds belong to the range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Domain {
    Flag { default: bool },
    Integer { default: i64, min: i64, max: i64 },
    Real { default: f64, min: f64, max: f64 },
    Text { default: &'static str },
    Choice { default: &'static str, of: &'static [&'static str] },
}

const fn at_start(name: &'static str, domain: Domain, description: &'static str) -> Declaration {
    Declaration { name, domain, live: false, description }
}

const fn live(name: &'static str, domain: Domain, description: &'static str) -> Declaration {
    Declaration { name, domain, live: true, description }
}

/// All parameters, in the order in which they are shown.
pub static DECLARATIONS: &[Declaration] = &[
    live(
        "model",
        Domain::Text { default: "" },
        "Folder of a student package; empty means the embedded one. A new one is loaded beside the old, which works on until then.",
    ),
    at_start(
        "device",
        Domain::Choice { default: "auto", of: &["auto", "cpu", "cuda"] },
        "Where inference runs; auto is CUDA where there is a device for it, else (and once that fails) the CPU.",
    ),
    at_start(
        "threads",
        Domain::Integer { default: 0, min: 0, max: 256 },
        "Threads for inference on the CPU; 0 means one for each core the process may use.",
    ),
    at_start(
        "input_width",
        Domain::Integer { default: 0, min: 0, max: 4096 },
        "Width of the network's input in pixels, a multiple of 32; 0 means the student's own size.",
    ),
    at_start(
        "input_height",
        Domain::Integer { default: 0, min: 0, max: 4096 },
        "Height of the network's input in pixels, a multiple of 32; 0 means the student's own size.",
    ),
    at_start(
        "cameras",
        Domain::Text { default: "" },
        "Names of several cameras, such as front,rear: each has its topics below its name. Empty means one without a name.",
    ),
    at_start("image_topic", Domain::Text { default: "image" }, "Topic of the images; may be remapped like any other."),
    at_start(
        "image_transport",
        Domain::Choice { default: "raw", of: &["raw", "compressed"] },
        "raw: sensor_msgs/Image on image_topic; compressed: JPEG or PNG on image_topic/compressed.",
    ),
    live(
        "score_threshold",
        Domain::Real { default: 0.3, min: 0.01, max: 0.99 },
        "Detections with a lower score are left out.",
    ),
    live(
        "nms_iou",
        Domain::Real { default: 0.6, min: 0.0, max: 1.0 },
        "Of two boxes of a class that overlap by more than this IoU, only the better one stays.",
    ),
    at_start(
        "max_detections",
        Domain::Integer { default: 100, min: 1, max: 1000 },
        "Most detections for one image; the best ones stay.",
    ),
    at_start(
        "segmentation",
        Domain::Flag { default: true },
        "Whether to segment as well; road_mask and segmentation are published while somebody subscribes to them.",
    ),
    at_start(
        "tracking",
        Domain::Flag { default: true },
        "Whether to follow objects from image to image; detections then carry the identity of their track.",
    ),
    at_start(
        "track_low_score",
        Domain::Real { default: 0.1, min: 0.01, max: 0.99 },
        "Detections from this score up to score_threshold are not published, but keep alive the tracks they belong to.",
    ),
    at_start(
        "track_keep_s",
        Domain::Real { default: 1.0, min: 0.0, max: 60.0 },
        "How long a track goes on while its object is not seen, in s.",
    ),
    at_start(
        "mask_resolution",
        Domain::Choice { default: "student", of: &["student", "source"] },
        "Size of road_mask and segmentation: a pixel for each cell of the network's mask, or for each of the image.",
    ),
    at_start(
        "mounting",
        Domain::Text { default: "" },
        "Where the camera is over the ground: x y z in m and roll pitch yaw in rad (REP 103), such as '1.2 0 1.5 0 0.05 0'; with it and CameraInfo, objects, drivable_ground and markers are published.",
    ),
    at_start(
        "mounting_height_sigma_m",
        Domain::Real { default: 0.05, min: 0.0, max: 10.0 },
        "How far the camera's height over the road may be off (standard deviation), in m.",
    ),
    at_start(
        "mounting_angle_sigma_deg",
        Domain::Real { default: 0.5, min: 0.0, max: 45.0 },
        "How far each of the mounting's angles may be off (standard deviation), in degrees.",
    ),
    at_start(
        "camera_info_topic",
        Domain::Text { default: "" },
        "Topic of the CameraInfo; empty means camera_info beside the images.",
    ),
    at_start(
        "image_is_rectified",
        Domain::Flag { default: false },
        "Whether images are rectified already, so that CameraInfo's P holds for them, and not K and D.",
    ),
    at_start("ground_frame", Domain::Text { default: "base_link" }, "frame_id of what is on the ground; see mounting."),
    at_start(
        "ground_range_m",
        Domain::Real { default: 80.0, min: 1.0, max: 1000.0 },
        "How far from the camera objects are placed on the ground, in m.",
    ),
    at_start(
        "map_length_m",
        Domain::Real { default: 40.0, min: 1.0, max: 500.0 },
        "How far ahead drivable_ground reaches, in m.",
    ),
    at_start(
        "map_width_m",
        Domain::Real { default: 20.0, min: 1.0, max: 500.0 },
        "How wide drivable_ground is, half of it to each side, in m.",
    ),
    at_start(
        "map_resolution_m",
        Domain::Real { default: 0.2, min: 0.02, max: 10.0 },
        "Side of a cell of drivable_ground, in m.",
    ),
    live(
        "deadline_ms",
        Domain::Real { default: 100.0, min: 0.0, max: 10_000.0 },
        "How old an image may be, from its stamp, when its detections are published, in ms; 0 means no deadline.",
    ),
    live(
        "deadline_policy",
        Domain::Choice { default: "publish_late", of: &["publish_late", "drop_late"] },
        "What becomes of results past the deadline: published and marked late, or dropped.",
    ),
    live(
        "max_consecutive_misses",
        Domain::Integer { default: 5, min: 1, max: 100_000 },
        "Deadlines missed in a row that make the diagnostics an error instead of a warning.",
    ),
    live(
        "stale_after_ms",
        Domain::Real { default: 2_000.0, min: 10.0, max: 3_600_000.0 },
        "Time without an image, in ms, after which a stream has stopped, which is an error.",
    ),
    live(
        "recover_after_frames",
        Domain::Integer { default: 30, min: 1, max: 100_000 },
        "Frames on time in a row after which a warning or an error about deadlines ends.",
    ),
    at_start(
        "degraded_mode",
        Domain::Choice { default: "none", of: &["none", "no_segmentation", "smaller_input", "both"] },
        "What is left out to keep deadlines when they are missed: segmentation, half of the input's pixels, or both.",
    ),
    live(
        "degrade_after_misses",
        Domain::Integer { default: 5, min: 1, max: 100_000 },
        "Deadlines missed in a row after which the degraded mode is entered.",
    ),
    live(
        "restore_after_frames",
        Domain::Integer { default: 150, min: 1, max: 100_000 },
        "Frames on time in a row after which it is left; doubled, up to 16 times, when it has to be entered again soon.",
    ),
    at_start(
        "realtime_priority",
        Domain::Integer { default: 0, min: 0, max: 99 },
        "Priority of the node's own threads under SCHED_FIFO; 0 leaves scheduling as it is.",
    ),
    at_start(
        "cpu_affinity",
        Domain::Text { default: "" },
        "Cores for the node's own threads, such as 2,4-6; empty leaves it to the system.",
    ),
    at_start(
        "lock_memory",
        Domain::Flag { default: false },
        "Whether to keep all memory of the process from being paged out (mlockall).",
    ),
    at_start(
        "prefault_stack_kib",
        Domain::Integer { default: 256, min: 0, max: 65_536 },
        "KiB of the frame thread's stack to touch before the first frame.",
    ),
    at_start(
        "autostart",
        Domain::Flag { default: true },
        "Whether the node configures and activates itself; otherwise whoever manages it does, as with any lifecycle node.",
    ),
    at_start("use_sim_time", Domain::Flag { default: false }, "Whether time comes from /clock instead of the system."),
];

/// Why a value was refused: one sentence that names the parameter and what it may be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no parameter '{0}'; perception_node --list-parameters shows them all")]
    Unknown(String),
    #[error("'{name}' must be {expected}, not {found}")]
    NotPermitted { name: &'static str, expected: String, found: String },
    #[error("'{0}' is read-only while the node is configured; set it at start, or after a cleanup")]
    ReadOnly(String),
    #[error("'{name}' {why}")]
    Override { name: String, why: String },
}

/// The declaration of the parameter called `name`.
///
/// # Errors
/// [`Refusal::Unknown`] when there is none.
pub fn declaration(name: &str) -> Result<&'static Declaration, Refusal> {
    DECLARATIONS.iter().find(|d| d.name == name).ok_or_else(|| Refusal::Unknown(name.to_owned()))
}

impl Declaration {
    /// The value that holds when nobody sets one.
    pub fn default(&self) -> ParameterValue {
        match self.domain {
            Domain::Flag { default } => ParameterValue::Bool(default),
            Domain::Integer { default, .. } => ParameterValue::Integer(default),
            Domain::Real { default, .. } => ParameterValue::Double(default),
            Domain::Text { default } | Domain::Choice { default, .. } => ParameterValue::String(default.to_owned()),
        }
    }

    /// Returns `value` if it is permitted. A whole number is taken for a real one, since `50` is what people write.
    ///
    /// # Errors
    /// [`Refusal::NotPermitted`] for another type, or outside the range.
    pub fn check(&self, value: ParameterValue) -> Result<ParameterValue, Refusal> {
        let value = match (self.domain, value) {
            (Domain::Real { .. }, ParameterValue::Integer(i)) => ParameterValue::Double(i as f64),
            (_, value) => value,
        };
        let permitted = match (self.domain, &value) {
            (Domain::Flag { .. }, ParameterValue::Bool(_)) => true,
            (Domain::Integer { min, max, .. }, ParameterValue::Integer(i)) => (min..=max).contains(i),
            (Domain::Real { min, max, .. }, ParameterValue::Double(x)) => (min..=max).contains(x),
            (Domain::Text { .. }, ParameterValue::String(_)) => true,
            (Domain::Choice { of, .. }, ParameterValue::String(s)) => of.contains(&s.as_str()),
            _ => false,
        };
        if permitted {
            return Ok(value);
        }
        Err(Refusal::NotPermitted { name: self.name, expected: self.expected(), found: shown(&value) })
    }

    /// What the value must be, for a sentence: `a number from 0 to 1`.
    fn expected(&self) -> String {
        match self.domain {
            Domain::Flag { .. } => "true or false".into(),
            Domain::Integer { min, max, .. } => format!("a whole number from {min} to {max}"),
            Domain::Real { min, max, .. } => format!("a number from {min} to {max}"),
            Domain::Text { .. } => "a text".into(),
            Domain::Choice { of, .. } => format!("one of {}", of.join(", ")),
        }
    }

    /// The permitted values, for a table: `0 … 1`.
    pub fn range(&self) -> String {
        match self.domain {
            Domain::Flag { .. } => "true, false".into(),
            Domain::Integer { min, max, .. } => format!("{min} … {max}"),
            Domain::Real { min, max, .. } => format!("{min:?} … {max:?}"),
            Domain::Text { .. } => "text".into(),
            Domain::Choice { of, .. } => of.join(", "),
        }
    }
}

/// A value as one would write it in a parameter file.
pub fn shown(value: &ParameterValue) -> String {
    match value {
        ParameterValue::Bool(v) => v.to_string(),
        ParameterValue::Integer(v) => v.to_string(),
        ParameterValue::Double(v) => format!("{v:?}"),
        ParameterValue::String(v) => format!("'{v}'"),
        ParameterValue::NotSet => "unset".into(),
        other => other.type_name().into(),
    }
}

/// The value of every parameter, each checked: what is in here is in range.
#[derive(Debug, Clone)]
pub struct Parameters {
    declared: Vec<ParameterValue>,
    /// The `qos_overrides` that were given, in the order in which they were.
    overrides: Vec<(String, ParameterValue)>,
    /// Overrides that were refused, by name; see [`fault`](Self::fault).
    faults: Vec<(String, Refusal)>,
    /// Whether also those may be set that are not live.
    open: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        let declared = DECLARATIONS.iter().map(Declaration::default).collect();
        Self { declared, overrides: Vec::new(), faults: Vec::new(), open: false }
    }
}

impl Parameters {
    /// The defaults, with `overrides` in their place.
    ///
    /// # Errors
    /// The first override that is unknown or not permitted.
    pub fn with(overrides: impl IntoIterator<Item = (String, ParameterValue)>) -> Result<Self, Refusal> {
        let mut parameters = Self::accepting(overrides);
        parameters.open = false;
        match parameters.faults.is_empty() {
            true => Ok(parameters),
            false => Err(parameters.faults.swap_remove(0).1),
        }
    }

    /// The defaults, with those of `overrides` in their place that are permitted; the others are remembered as
    /// [`fault`](Self::fault). Open to all changes.
    pub fn accepting(overrides: impl IntoIterator<Item = (String, ParameterValue)>) -> Self {
        let mut parameters = Self { open: true, ..Self::default() };
        for (name, value) in overrides {
            if let Err(refusal) = parameters.set(&name, value) {
                parameters.faults.push((name, refusal));
            }
        }
        parameters
    }

    /// The first override that was refused, and for which nothing permitted was set since.
    pub fn fault(&self) -> Option<&Refusal> {
        self.faults.first().map(|(_, refusal)| refusal)
    }

    /// Whether all parameters may be set from now on, or the live ones only.
    pub fn set_open(&mut self, open: bool) {
        self.open = open;
    }

    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Changes a parameter. Setting a read-only one to the value that it has is no change.
    ///
    /// # Errors
    /// When `name` is unknown or read-only, or the value is not permitted; nothing has changed then.
    pub fn set(&mut self, name: &str, value: ParameterValue) -> Result<(), Refusal> {
        let value = self.check(name, value)?;
        if !qos::is_override(name) {
            self.declared[index(name)] = value;
        } else if let Some((_, known)) = self.overrides.iter_mut().find(|(known, _)| known == name) {
            *known = value;
        } else {
            self.overrides.push((name.to_owned(), value));
        }
        self.faults.retain(|(faulty, _)| faulty != name);
        Ok(())
    }

    /// Whether [`set`](Self::set) would accept it, and the value that it would store.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn check(&self, name: &str, value: ParameterValue) -> Result<ParameterValue, Refusal> {
        let (value, live) = if qos::is_override(name) {
            qos::check(name, &value)?;
            (value, false)
        } else {
            let declaration = declaration(name)?;
            (declaration.check(value)?, declaration.live)
        };
        if !live && !self.open && self.get(name) != Some(&value) {
            return Err(Refusal::ReadOnly(name.to_owned()));
        }
        Ok(value)
    }

    /// The value of the parameter called `name`, if there is one.
    pub fn get(&self, name: &str) -> Option<&ParameterValue> {
        match declaration(name) {
            Ok(_) => Some(&self.declared[index(name)]),
            Err(_) => self.qos_overrides().find(|(known, _)| *known == name).map(|(_, value)| value),
        }
    }

    /// All names: those declared, then the overrides that were given.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        DECLARATIONS.iter().map(|d| d.name).chain(self.qos_overrides().map(|(name, _)| name))
    }

    /// The `qos_overrides` that were given.
    pub fn qos_overrides(&self) -> impl Iterator<Item = (&str, &ParameterValue)> {
        self.overrides.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The value of a flag. Panics when none is declared under `name`, as the other typed getters do.
    pub fn flag(&self, name: &str) -> bool {
        match self.declared[index(name)] {
            ParameterValue::Bool(v) => v,
            _ => panic!("{name} is not declared as a flag"),
        }
    }

    /// The value of a whole number whose range has no negative numbers.
    pub fn count(&self, name: &str) -> usize {
        match self.declared[index(name)] {
            ParameterValue::Integer(v) => usize::try_from(v).expect("declared with min >= 0"),
            _ => panic!("{name} is not declared as an integer"),
        }
    }

    /// The value of a real number.
    pub fn real(&self, name: &str) -> f64 {
        match self.declared[index(name)] {
            ParameterValue::Double(v) => v,
            _ => panic!("{name} is not declared as a real number"),
        }
    }

    /// The value of a text or a choice.
    pub fn text(&self, name: &str) -> &str {
        match &self.declared[index(name)] {
            ParameterValue::String(v) => v,
            _ => panic!("{name} is not declared as a text"),
        }
    }
}

fn index(name: &str) -> usize {
    DECLARATIONS.iter().position(|d| d.name == name).expect("only declared names are used")
}

/// The table of the README: one row a parameter.
pub fn markdown() -> String {
    let mut table = String::from("| parameter | default | permitted | live | what it does |\n|---|---|---|---|---|\n");
    for d in DECLARATIONS {
        let live = if d.live { "yes" } else { "" };
        let default = shown(&d.default());
        table += &format!("| `{}` | `{default}` | {} | {live} | {} |\n", d.name, d.range(), d.description);
    }
    table
}

/// The list for a terminal.
pub fn listing() -> String {
    let mut list = String::new();
    for d in DECLARATIONS {
        let live = if d.live { ", live" } else { "" };
        list +=
            &format!("  {} ({}; default {}{live})\n      {}\n", d.name, d.range(), shown(&d.default()), d.description);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_permitted() {
        for d in DECLARATIONS {
            assert_eq!(d.check(d.default()).as_ref(), Ok(&d.default()), "{}", d.name);
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = DECLARATIONS.iter().map(|d| d.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DECLARATIONS.len());
    }

    #[test]
    fn bounds_belong_to_the_range_and_what_lies_beyond_is_refused() {
        let check = |value| declaration("nms_iou").unwrap().check(ParameterValue::Double(value));
        assert!(check(0.0).is_ok() && check(1.0).is_ok());
        for value in [-1e-9, 1.0 + 1e-9, f64::NAN, f64::INFINITY] {
            let sentence = check(value).unwrap_err().to_string();
            assert!(sentence.starts_with("'nms_iou' must be a number from 0 to 1, not "), "{sentence}");
        }
    }

    #[test]
    fn a_whole_number_serves_as_a_real_one_but_not_the_other_way_round() {
        let real = declaration("deadline_ms").unwrap();
        assert_eq!(real.check(ParameterValue::Integer(50)), Ok(ParameterValue::Double(50.0)));
        assert!(declaration("threads").unwrap().check(ParameterValue::Double(2.0)).is_err());
    }

    #[test]
    fn a_running_node_refuses_read_only_parameters_and_keeps_its_value() {
        let mut parameters = Parameters::default();
        let refusal = parameters.set("device", ParameterValue::String("cpu".into())).unwrap_err();
        assert_eq!(refusal, Refusal::ReadOnly("device".into()));
        assert_eq!(parameters.text("device"), "auto");
        assert_eq!(parameters.set("device", ParameterValue::String("auto".into())), Ok(()));
        assert_eq!(parameters.set("score_threshold", ParameterValue::Double(0.5)), Ok(()));
        assert_eq!(parameters.real("score_threshold"), 0.5);
    }

    #[test]
    fn while_the_node_is_not_configured_every_parameter_can_be_set() {
        let mut parameters = Parameters::accepting([]);
        assert_eq!(parameters.set("device", ParameterValue::String("cpu".into())), Ok(()));
        let depth = "qos_overrides./image.subscription.depth";
        assert_eq!(parameters.set(depth, ParameterValue::Integer(2)), Ok(()));
        parameters.set_open(false);
        assert_eq!(parameters.set(depth, ParameterValue::Integer(3)), Err(Refusal::ReadOnly(depth.into())));
        assert_eq!(parameters.names().last(), Some(depth));
    }

    #[test]
    fn a_refused_override_is_a_fault_until_it_is_set_well() {
        let bad = ("nms_iou".to_owned(), ParameterValue::Double(7.0));
        let mut parameters = Parameters::accepting([bad]);
        assert!(parameters.fault().is_some_and(|fault| fault.to_string().contains("'nms_iou'")));
        assert_eq!(parameters.real("nms_iou"), 0.6);
        parameters.set("nms_iou", ParameterValue::Double(0.5)).unwrap();
        assert_eq!(parameters.fault(), None);
    }

    #[test]
    fn an_override_under_a_wrong_name_is_refused_by_that_name() {
        let typo = Parameters::with([("score_treshold".to_owned(), ParameterValue::Double(0.5))]).unwrap_err();
        assert!(typo.to_string().contains("'score_treshold'"), "{typo}");
    }
}
