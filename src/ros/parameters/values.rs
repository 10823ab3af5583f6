//! The values in force.

use r2r::ParameterValue;

use super::declaration::Declaration;
use super::error::ParameterError;
use super::table::{declaration, split_camera, DECLARATIONS};
use super::{ignorable, qos_overrides};
use crate::arguments::given::Given;

/// The value of every parameter, each checked: all are within their ranges.
#[derive(Debug, Clone)]
pub struct Parameters {
    declared: Vec<ParameterValue>,
    /// `qos_overrides` and parameters of one camera, in the order in which they were given.
    others: Vec<(String, ParameterValue)>,
    /// Overrides that were refused, by name; see [`fault`](Self::fault).
    faults: Vec<(String, ParameterError)>,
    /// Whether parameters that are not live may be set as well.
    open: bool,
    /// Whether the node has been started with them, from when on some are fixed.
    started: bool,
    /// Names of the `qos_overrides` that may be meant for other nodes.
    shared: Vec<String>,
}

impl Default for Parameters {
    fn default() -> Self {
        let declared = DECLARATIONS.iter().map(Declaration::default).collect();
        Self { declared, others: Vec::new(), faults: Vec::new(), open: false, started: false, shared: Vec::new() }
    }
}

impl Parameters {
    /// The defaults, replaced by `overrides`.
    ///
    /// # Errors
    /// The first override that is unknown or not permitted.
    pub fn with(overrides: impl IntoIterator<Item = (String, ParameterValue)>) -> Result<Self, ParameterError> {
        let mut parameters = Self::accepting(overrides);
        parameters.open = false;
        if parameters.faults.is_empty() {
            Ok(parameters)
        } else {
            Err(parameters.faults.swap_remove(0).1)
        }
    }

    /// The defaults, replaced by those of `overrides` that are permitted; the others are
    /// remembered, see [`fault`](Self::fault). Open to all changes.
    fn accepting(overrides: impl IntoIterator<Item = (String, ParameterValue)>) -> Self {
        let mut parameters = Self { open: true, ..Self::default() };
        overrides.into_iter().for_each(|(name, value)| parameters.accept(name, value));
        parameters
    }

    /// Sets a parameter, or remembers why it is refused.
    fn accept(&mut self, name: String, value: ParameterValue) {
        if let Err(refusal) = self.set(&name, value) {
            self.faults.push((name, refusal));
        }
    }

    /// The defaults, replaced by those of the overrides `given` at start that are permitted, and a
    /// sentence on each that is ignored: what rclcpp gives every node, and what is unknown in a file
    /// for many nodes. Faults are remembered, see [`fault`](Self::fault); open to all changes.
    pub fn given(given: impl IntoIterator<Item = Given>) -> (Self, Vec<String>) {
        let (mut parameters, mut ignored) = (Self { open: true, ..Self::default() }, Vec::new());
        for Given { name, value, source } in given {
            if let Some(why) = ignorable::why(&name, &source, parameters.check(&name, value.clone()).err()) {
                ignored.push(why);
                continue;
            }
            if source.is_shared() && qos_overrides::is_override(&name) {
                parameters.shared.push(name.clone());
            }
            parameters.accept(name, value);
        }
        parameters.started = true;
        (parameters, ignored)
    }

    /// Whether a QoS override stands in a file for many nodes.
    pub fn is_shared(&self, name: &str) -> bool {
        self.shared.iter().any(|shared| shared == name)
    }

    /// The first override that was refused, and that no permitted value has replaced since.
    pub fn fault(&self) -> Option<&ParameterError> {
        self.faults.first().map(|(_, refusal)| refusal)
    }

    /// Whether all parameters may be set from now on, or the live ones only.
    pub fn set_open(&mut self, open: bool) {
        self.open = open;
    }

    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Changes a parameter. Setting a read-only one to the value that it has is permitted.
    ///
    /// # Errors
    /// When `name` is unknown or read-only, or the value is not permitted; then nothing has
    /// changed.
    pub fn set(&mut self, name: &str, value: ParameterValue) -> Result<(), ParameterError> {
        let value = self.check(name, value)?;
        if let Some(index) = index(name) {
            self.declared[index] = value;
        } else if let Some((_, known)) = self.others.iter_mut().find(|(known, _)| known == name) {
            *known = value;
        } else {
            self.others.push((name.to_owned(), value));
        }
        self.faults.retain(|(faulty, _)| faulty != name);
        Ok(())
    }

    /// Whether [`set`](Self::set) would accept it, and the value that it would store.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn check(&self, name: &str, value: ParameterValue) -> Result<ParameterValue, ParameterError> {
        let (value, live, fixed) = if qos_overrides::is_override(name) {
            qos_overrides::check(name, &value)?;
            (value, false, false)
        } else {
            let declaration = declaration(name)?;
            (declaration.check(name, value)?, declaration.live, declaration.fixed)
        };
        match self.get(name) {
            Some(known) if *known == value => Ok(value),
            _ if fixed && self.started => Err(ParameterError::Fixed(name.to_owned())),
            _ if !live && !self.open => Err(ParameterError::ReadOnly(name.to_owned())),
            _ => Ok(value),
        }
    }

    /// The value of the parameter called `name`, if there is one.
    pub fn get(&self, name: &str) -> Option<&ParameterValue> {
        match index(name) {
            Some(index) => Some(&self.declared[index]),
            None => self.others.iter().find(|(known, _)| known == name).map(|(_, value)| value),
        }
    }

    /// All names: those declared, then `qos_overrides` and parameters of one camera.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        DECLARATIONS.iter().map(|d| d.name).chain(self.others.iter().map(|(name, _)| name.as_str()))
    }

    /// The `qos_overrides` that were given.
    pub fn qos_overrides(&self) -> impl Iterator<Item = (&str, &ParameterValue)> {
        self.others
            .iter()
            .map(|(name, value)| (name.as_str(), value))
            .filter(|(name, _)| qos_overrides::is_override(name))
    }

    /// The parameters of one of the `cameras`: what was given for it alone overrides what was given
    /// for all.
    ///
    /// # Errors
    /// When a parameter was given for an unknown camera.
    pub fn for_camera(&self, camera: &str, cameras: &[String]) -> Result<Self, ParameterError> {
        let mut own = self.clone();
        for (name, value) in self.others.iter().filter(|(name, _)| !qos_overrides::is_override(name)) {
            let (of, parameter) = split_camera(name).expect("the others are QoS overrides");
            if of == camera {
                own.declared[place(parameter)] = value.clone();
            } else if !cameras.iter().any(|known| known == of) {
                let cameras: Vec<_> = cameras.iter().filter(|c| !c.is_empty()).map(String::as_str).collect();
                let why = if cameras.is_empty() {
                    "is for one of several cameras, but the parameter 'cameras' is empty".into()
                } else {
                    format!("is for an unknown camera; this node has {}", cameras.join(", "))
                };
                return Err(ParameterError::Invalid { name: name.clone(), why });
            }
        }
        Ok(own)
    }

    /// The value of a boolean. Panics if none is declared under `name`, as the other typed getters
    /// do.
    pub fn flag(&self, name: &str) -> bool {
        match self.declared[place(name)] {
            ParameterValue::Bool(v) => v,
            _ => panic!("{name} is not declared as a flag"),
        }
    }

    /// The value of an integer whose range has no negative numbers.
    pub fn count(&self, name: &str) -> usize {
        match self.declared[place(name)] {
            ParameterValue::Integer(v) => usize::try_from(v).expect("declared with min >= 0"),
            _ => panic!("{name} is not declared as an integer"),
        }
    }

    /// The value of a real number.
    pub fn real(&self, name: &str) -> f64 {
        match self.declared[place(name)] {
            ParameterValue::Double(v) => v,
            _ => panic!("{name} is not declared as a real number"),
        }
    }

    /// The value of a string or a choice.
    pub fn text(&self, name: &str) -> &str {
        match &self.declared[place(name)] {
            ParameterValue::String(v) => v,
            _ => panic!("{name} is not declared as a text"),
        }
    }
}

fn index(name: &str) -> Option<usize> {
    DECLARATIONS.iter().position(|d| d.name == name)
}

fn place(name: &str) -> usize {
    index(name).expect("only declared names are used")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::given::Source;

    #[test]
    fn a_running_node_refuses_read_only_parameters() {
        let mut parameters = Parameters::default();
        let refusal = parameters.set("device", ParameterValue::String("cpu".into())).unwrap_err();
        assert_eq!(refusal, ParameterError::ReadOnly("device".into()));
        assert_eq!(parameters.text("device"), "auto");
        assert_eq!(parameters.set("device", ParameterValue::String("auto".into())), Ok(()));
        assert_eq!(parameters.set("score_threshold", ParameterValue::Double(0.5)), Ok(()));
        assert_eq!(parameters.real("score_threshold"), 0.5);
    }

    #[test]
    fn a_fixed_parameter_is_given_at_start_and_never_again() {
        let text = |text: &str| ParameterValue::String(text.into());
        let root = Given { name: "models_root".into(), value: text("/models"), source: Source::CommandLine };
        let (mut parameters, _) = Parameters::given([root]);
        assert_eq!((parameters.fault(), parameters.text("models_root")), (None, "/models"));
        assert_eq!(parameters.set("models_root", text("")), Err(ParameterError::Fixed("models_root".into())));
        assert_eq!(parameters.set("models_root", text("/models")), Ok(()));
    }

    #[test]
    fn an_unconfigured_node_accepts_every_parameter() {
        let mut parameters = Parameters::accepting([]);
        assert_eq!(parameters.set("device", ParameterValue::String("cpu".into())), Ok(()));
        let depth = "qos_overrides./image.subscription.depth";
        assert_eq!(parameters.set(depth, ParameterValue::Integer(2)), Ok(()));
        parameters.set_open(false);
        assert_eq!(parameters.set(depth, ParameterValue::Integer(3)), Err(ParameterError::ReadOnly(depth.into())));
        assert_eq!(parameters.names().last(), Some(depth));
    }

    #[test]
    fn a_refused_override_is_a_fault_until_a_valid_one_is_set() {
        let bad = ("nms_iou".to_owned(), ParameterValue::Double(7.0));
        let mut parameters = Parameters::accepting([bad]);
        assert!(parameters.fault().is_some_and(|fault| fault.to_string().contains("'nms_iou'")));
        assert_eq!(parameters.real("nms_iou"), 0.6);
        parameters.set("nms_iou", ParameterValue::Double(0.5)).unwrap();
        assert_eq!(parameters.fault(), None);
    }

    #[test]
    fn an_unknown_parameter_is_refused_by_its_name() {
        let typo = Parameters::with([("score_treshold".to_owned(), ParameterValue::Double(0.5))]).unwrap_err();
        let expected = "'score_treshold' is unknown; did you mean 'score_threshold'?";
        assert!(typo.to_string().starts_with(expected), "{typo}");
    }

    #[test]
    fn a_cameras_own_parameter_holds_for_it_alone() {
        let text = |name: &str, text: &str| (name.to_owned(), ParameterValue::String(text.into()));
        let mounting = [text("mounting", "0 0 1 0 0 0"), text("rear.mounting", "0 0 2 0 0 0")];
        let parameters = Parameters::with(mounting).unwrap();
        let cameras = ["front".to_owned(), "rear".to_owned()];
        let of = |camera: &str| parameters.for_camera(camera, &cameras).unwrap().text("mounting").to_owned();
        assert_eq!((of("front"), of("rear")), ("0 0 1 0 0 0".into(), "0 0 2 0 0 0".into()));
        assert_eq!(parameters.names().last(), Some("rear.mounting"));
        let refusal = parameters.for_camera("front", &cameras[..1]).unwrap_err().to_string();
        assert_eq!(refusal, "'rear.mounting' is for an unknown camera; this node has front");
        assert!(parameters.for_camera("", &[String::new()]).unwrap_err().to_string().contains("'cameras' is empty"));
    }

    #[test]
    fn a_shared_parameter_is_refused_for_one_camera() {
        let refusal = Parameters::with([("front.threads".to_owned(), ParameterValue::Integer(1))]).unwrap_err();
        assert!(matches!(refusal, ParameterError::Unknown { name, .. } if name == "front.threads"));
        let wrong =
            Parameters::with([("front.image_is_rectified".to_owned(), ParameterValue::Integer(1))]).unwrap_err();
        assert!(wrong.to_string().starts_with("'front.image_is_rectified' must be true or false"), "{wrong}");
    }
}
