//! The values that hold.

use r2r::ParameterValue;

use super::{declaration, of_camera, Declaration, Refusal, DECLARATIONS};
use crate::qos;

/// The value of every parameter, each checked: what is in here is in range.
#[derive(Debug, Clone)]
pub struct Parameters {
    declared: Vec<ParameterValue>,
    /// What was given besides: `qos_overrides`, and those of one camera. In the order in which they were given.
    others: Vec<(String, ParameterValue)>,
    /// Overrides that were refused, by name; see [`fault`](Self::fault).
    faults: Vec<(String, Refusal)>,
    /// Whether also those may be set that are not live.
    open: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        let declared = DECLARATIONS.iter().map(Declaration::default).collect();
        Self { declared, others: Vec::new(), faults: Vec::new(), open: false }
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
    pub fn check(&self, name: &str, value: ParameterValue) -> Result<ParameterValue, Refusal> {
        let (value, live) = if qos::is_override(name) {
            qos::check(name, &value)?;
            (value, false)
        } else {
            let declaration = declaration(name)?;
            (declaration.check(name, value)?, declaration.live)
        };
        if !live && !self.open && self.get(name) != Some(&value) {
            return Err(Refusal::ReadOnly(name.to_owned()));
        }
        Ok(value)
    }

    /// The value of the parameter called `name`, if there is one.
    pub fn get(&self, name: &str) -> Option<&ParameterValue> {
        match index(name) {
            Some(index) => Some(&self.declared[index]),
            None => self.others.iter().find(|(known, _)| known == name).map(|(_, value)| value),
        }
    }

    /// All names: those declared, then what was given besides.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        DECLARATIONS.iter().map(|d| d.name).chain(self.others.iter().map(|(name, _)| name.as_str()))
    }

    /// The `qos_overrides` that were given.
    pub fn qos_overrides(&self) -> impl Iterator<Item = (&str, &ParameterValue)> {
        self.others.iter().map(|(name, value)| (name.as_str(), value)).filter(|(name, _)| qos::is_override(name))
    }

    /// These parameters as one of the `cameras` has them: what was given for it alone holds instead of what was given
    /// for all.
    ///
    /// # Errors
    /// When something was given for a camera that there is not.
    pub fn for_camera(&self, camera: &str, cameras: &[String]) -> Result<Self, Refusal> {
        let mut own = self.clone();
        for (name, value) in self.others.iter().filter(|(name, _)| !qos::is_override(name)) {
            let (of, parameter) = of_camera(name).expect("nothing else is kept besides");
            if of == camera {
                own.declared[place(parameter)] = value.clone();
            } else if !cameras.iter().any(|known| known == of) {
                let cameras: Vec<_> = cameras.iter().filter(|c| !c.is_empty()).map(String::as_str).collect();
                let why = match cameras.is_empty() {
                    true => "is about one of several cameras, and the parameter 'cameras' names none".into(),
                    false => format!("is about no camera of this node; there are {}", cameras.join(", ")),
                };
                return Err(Refusal::Unfit { name: name.clone(), why });
            }
        }
        Ok(own)
    }

    /// The value of a flag. Panics when none is declared under `name`, as the other typed getters do.
    pub fn flag(&self, name: &str) -> bool {
        match self.declared[place(name)] {
            ParameterValue::Bool(v) => v,
            _ => panic!("{name} is not declared as a flag"),
        }
    }

    /// The value of a whole number whose range has no negative numbers.
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

    /// The value of a text or a choice.
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

    #[test]
    fn what_is_given_for_one_camera_holds_for_it_alone() {
        let text = |name: &str, text: &str| (name.to_owned(), ParameterValue::String(text.into()));
        let mounting = [text("mounting", "0 0 1 0 0 0"), text("rear.mounting", "0 0 2 0 0 0")];
        let parameters = Parameters::with(mounting).unwrap();
        let cameras = ["front".to_owned(), "rear".to_owned()];
        let of = |camera: &str| parameters.for_camera(camera, &cameras).unwrap().text("mounting").to_owned();
        assert_eq!((of("front"), of("rear")), ("0 0 1 0 0 0".into(), "0 0 2 0 0 0".into()));
        assert_eq!(parameters.names().last(), Some("rear.mounting"));
        let refusal = parameters.for_camera("front", &cameras[..1]).unwrap_err().to_string();
        assert_eq!(refusal, "'rear.mounting' is about no camera of this node; there are front");
        assert!(parameters.for_camera("", &[String::new()]).unwrap_err().to_string().contains("'cameras' names none"));
    }

    #[test]
    fn what_all_cameras_share_is_refused_for_one() {
        let refusal = Parameters::with([("front.threads".to_owned(), ParameterValue::Integer(1))]).unwrap_err();
        assert_eq!(refusal, Refusal::Unknown("front.threads".into()));
        let wrong =
            Parameters::with([("front.image_is_rectified".to_owned(), ParameterValue::Integer(1))]).unwrap_err();
        assert!(wrong.to_string().starts_with("'front.image_is_rectified' must be true or false"), "{wrong}");
    }
}
