//! The six parameter services that `ros2 param`, launch files and rqt speak to, and
//! `/parameter_events`.
//!
//! r2r has these too, but its descriptors carry neither ranges nor read-only flags.

use r2r::rcl_interfaces::msg::{self, ParameterDescriptor, ParameterEvent, SetParametersResult};
use r2r::rcl_interfaces::srv::{
    DescribeParameters, GetParameterTypes, GetParameters, ListParameters, SetParameters, SetParametersAtomically,
};
use r2r::{Node, ParameterValue, Publisher, QosProfile, ServiceRequest, WrappedServiceTypeSupport};

use super::parameters::{declaration, qos_overrides, Declaration, Domain, Parameters};
use super::requests::{next, Requests};

/// The services of one node. All work is done in [`serve`](Self::serve), on the thread that spins
/// the node.
pub struct ParameterServices {
    set: Requests<SetParameters::Service>,
    set_atomically: Requests<SetParametersAtomically::Service>,
    get: Requests<GetParameters::Service>,
    types: Requests<GetParameterTypes::Service>,
    list: Requests<ListParameters::Service>,
    describe: Requests<DescribeParameters::Service>,
    events: Publisher<ParameterEvent>,
    node_name: String,
    /// A request whose answer waits until its model is loaded.
    pending: Option<Pending>,
}

/// The outcome of [`ParameterServices::serve`].
#[derive(Debug, Default)]
pub struct Served {
    /// Names of the parameters that were set.
    pub changed: Vec<String>,
    /// The folder of a model to load; [`ParameterServices::finish`] takes the outcome.
    pub model: Option<String>,
}

/// How a new value of the parameter `model` is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewModel {
    /// It is set, for the next configuration of the node.
    Set,
    /// Its folder is returned to be loaded, and the answer waits for [`ParameterServices::finish`].
    Load,
    /// It is refused, since another one is being loaded.
    Refuse,
}

impl NewModel {
    /// Whether setting a parameter has to wait until a model is loaded.
    fn takes_time(self, parameters: &Parameters, name: &str, value: &ParameterValue) -> bool {
        self != Self::Set && name == MODEL && parameters.get(MODEL) != Some(value)
    }
}

/// The parameter whose change takes time, since a model has to be loaded.
const MODEL: &str = "model";

/// A request that changes the model, possibly with other parameters.
struct Pending {
    folder: ParameterValue,
    answer: Answer,
}

enum Answer {
    /// The results so far; that of the model, at the index, is still to come.
    Each(ServiceRequest<SetParameters::Service>, Vec<SetParametersResult>, usize),
    /// All or nothing.
    All(ServiceRequest<SetParametersAtomically::Service>),
}

impl ParameterServices {
    /// # Errors
    /// When ROS refuses to make a service or the publisher.
    pub fn new(node: &mut Node) -> r2r::Result<Self> {
        Ok(Self {
            set: service(node, "set_parameters")?,
            set_atomically: service(node, "set_parameters_atomically")?,
            get: service(node, "get_parameters")?,
            types: service(node, "get_parameter_types")?,
            list: service(node, "list_parameters")?,
            describe: service(node, "describe_parameters")?,
            events: node.create_publisher("/parameter_events", QosProfile::parameter_events())?,
            node_name: node.fully_qualified_name()?,
            pending: None,
        })
    }

    /// Answers every waiting request without blocking.
    ///
    /// A client that has gone before its answer is not an error of this node, so failures to
    /// respond are ignored.
    pub fn serve(&mut self, parameters: &mut Parameters, new_model: NewModel) -> Served {
        let mut served = Served::default();
        while let Some(request) = next(&mut self.set) {
            self.set_each(request, parameters, new_model, &mut served);
        }
        while let Some(request) = next(&mut self.set_atomically) {
            self.set_all(request, parameters, new_model, &mut served);
        }
        self.serve_queries(parameters);
        self.announce(parameters, &served.changed);
        served
    }

    /// Sets each parameter of a request by itself.
    fn set_each(
        &mut self,
        request: ServiceRequest<SetParameters::Service>,
        parameters: &mut Parameters,
        new_model: NewModel,
        served: &mut Served,
    ) {
        let mut deferred = None;
        let mut results = Vec::new();
        for (i, p) in request.message.parameters.iter().enumerate() {
            let value = from_message(&p.value);
            let result = if new_model.takes_time(parameters, &p.name, &value) {
                self.may_load(parameters, new_model, &value).inspect(|()| deferred = Some((i, value)))
            } else {
                let set = parameters.set(&p.name, value).map_err(|error| error.to_string());
                set.inspect(|()| served.changed.push(p.name.clone()))
            };
            results.push(result.map_or_else(refused, |()| accepted()));
        }
        if let Some((i, folder)) = deferred {
            served.model = Some(folder_of(&folder));
            self.pending = Some(Pending { folder, answer: Answer::Each(request, results, i) });
        } else {
            let _ = request.respond(SetParameters::Response { results });
        }
    }

    /// Sets all parameters of a request or none.
    fn set_all(
        &mut self,
        request: ServiceRequest<SetParametersAtomically::Service>,
        parameters: &mut Parameters,
        new_model: NewModel,
        served: &mut Served,
    ) {
        let wanted = &request.message.parameters;
        let mut new = wanted.iter().map(|p| (&p.name, from_message(&p.value)));
        let new = new.rfind(|(name, value)| new_model.takes_time(parameters, name, value));
        let outcome = match &new {
            Some((_, folder)) => {
                self.may_load(parameters, new_model, folder).and_then(|()| with_all(parameters, wanted).map(drop))
            }
            None => with_all(parameters, wanted).map(|all| {
                *parameters = all;
                served.changed.extend(wanted.iter().map(|p| p.name.clone()));
            }),
        };
        match (outcome, new.map(|(_, folder)| folder)) {
            (Ok(()), Some(folder)) => {
                served.model = Some(folder_of(&folder));
                self.pending = Some(Pending { folder, answer: Answer::All(request) });
            }
            (outcome, _) => {
                let result = outcome.map_or_else(refused, |()| accepted());
                let _ = request.respond(SetParametersAtomically::Response { result });
            }
        }
    }

    /// Answers the requests that change nothing.
    fn serve_queries(&mut self, parameters: &Parameters) {
        while let Some(request) = next(&mut self.get) {
            let value = |name: &String| to_message(parameters.get(name).unwrap_or(&ParameterValue::NotSet));
            let values = request.message.names.iter().map(value).collect();
            let _ = request.respond(GetParameters::Response { values });
        }
        while let Some(request) = next(&mut self.types) {
            let type_of = |name: &String| parameters.get(name).map_or(0, |value| to_message(value).type_);
            let types = request.message.names.iter().map(type_of).collect();
            let _ = request.respond(GetParameterTypes::Response { types });
        }
        while let Some(request) = next(&mut self.list) {
            let wanted = &request.message.prefixes;
            let below = |name: &str, prefix: &str| {
                name.strip_prefix(prefix).is_some_and(|r| r.is_empty() || r.starts_with('.'))
            };
            let is_wanted = |name: &&str| wanted.is_empty() || wanted.iter().any(|prefix| below(name, prefix));
            let names = parameters.names().filter(is_wanted).map(str::to_owned).collect();
            let result = msg::ListParametersResult { names, prefixes: Vec::new() };
            let _ = request.respond(ListParameters::Response { result });
        }
        while let Some(request) = next(&mut self.describe) {
            let names = request.message.names.iter().filter(|name| parameters.get(name).is_some());
            let descriptors = names.map(|name| descriptor(name, parameters)).collect();
            let _ = request.respond(DescribeParameters::Response { descriptors });
        }
    }

    /// Answers the request for the model that was loaded, or not, for the reason given.
    pub fn finish(&mut self, parameters: &mut Parameters, outcome: Result<(), String>) {
        let Some(Pending { folder, answer }) = self.pending.take() else { return };
        let mut changed = Vec::new();
        let set = |parameters: &mut Parameters, changed: &mut Vec<String>| {
            changed.push(MODEL.to_owned());
            parameters.set(MODEL, folder).map_err(|refusal| refusal.to_string())
        };
        match answer {
            Answer::Each(request, mut results, i) => {
                let outcome = outcome.and_then(|()| set(parameters, &mut changed));
                results[i] = outcome.map_or_else(refused, |()| accepted());
                let _ = request.respond(SetParameters::Response { results });
            }
            Answer::All(request) => {
                let wanted = &request.message.parameters;
                let outcome = outcome.and_then(|()| with_all(parameters, wanted)).map(|all| {
                    *parameters = all;
                    changed.extend(wanted.iter().map(|p| p.name.clone()));
                });
                let result = outcome.map_or_else(refused, |()| accepted());
                let _ = request.respond(SetParametersAtomically::Response { result });
            }
        }
        self.announce(parameters, &changed);
    }

    fn may_load(&self, parameters: &Parameters, new_model: NewModel, folder: &ParameterValue) -> Result<(), String> {
        if new_model == NewModel::Refuse || self.pending.is_some() {
            return Err("a model is being loaded already; set 'model' again once that has finished".into());
        }
        parameters.check(MODEL, folder.clone()).map(drop).map_err(|refusal| refusal.to_string())
    }

    /// Publishes that `names` have changed.
    fn announce(&self, parameters: &Parameters, names: &[String]) {
        if names.is_empty() {
            return;
        }
        let parameter = |name: &String| msg::Parameter {
            name: name.clone(),
            value: to_message(parameters.get(name).unwrap_or(&ParameterValue::NotSet)),
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let event = ParameterEvent {
            stamp: r2r::Clock::to_builtin_time(&now),
            node: self.node_name.clone(),
            changed_parameters: names.iter().map(parameter).collect(),
            ..Default::default()
        };
        let _ = self.events.publish(&event);
    }
}

fn service<T: WrappedServiceTypeSupport + 'static>(node: &mut Node, name: &str) -> r2r::Result<Requests<T>> {
    Ok(Box::new(node.create_service::<T>(&format!("~/{name}"), QosProfile::parameters())?))
}

fn folder_of(folder: &ParameterValue) -> String {
    match folder {
        ParameterValue::String(folder) => folder.clone(),
        _ => String::new(),
    }
}

/// The parameters with all changes, or why one is refused.
fn with_all(parameters: &Parameters, wanted: &[msg::Parameter]) -> Result<Parameters, String> {
    let mut all = parameters.clone();
    for p in wanted {
        all.set(&p.name, from_message(&p.value)).map_err(|refusal| refusal.to_string())?;
    }
    Ok(all)
}

fn accepted() -> SetParametersResult {
    SetParametersResult { successful: true, reason: String::new() }
}

fn refused(refusal: impl ToString) -> SetParametersResult {
    SetParametersResult { successful: false, reason: refusal.to_string() }
}

/// The descriptor that `ros2 param describe` shows.
fn descriptor(name: &str, parameters: &Parameters) -> ParameterDescriptor {
    match declaration(name) {
        Ok(d) => declared(name, d, parameters.is_open()),
        Err(_) => {
            let (constraint, description) = qos_overrides::describe(name).unwrap_or_default();
            ParameterDescriptor {
                name: name.to_owned(),
                type_: parameters.get(name).map_or(0, |value| to_message(value).type_),
                description,
                additional_constraints: constraint.to_owned(),
                read_only: !parameters.is_open(),
                ..Default::default()
            }
        }
    }
}

fn declared(name: &str, d: &'static Declaration, open: bool) -> ParameterDescriptor {
    let mut descriptor = ParameterDescriptor {
        name: name.to_owned(),
        type_: to_message(&d.default()).type_,
        description: d.description.to_owned(),
        read_only: d.fixed || !(d.live || open),
        ..Default::default()
    };
    match d.domain {
        Domain::Integer { min, max, .. } => {
            let range = msg::IntegerRange { from_value: min, to_value: max, step: 1 };
            descriptor.integer_range = vec![range];
        }
        Domain::Real { min, max, .. } => {
            let range = msg::FloatingPointRange { from_value: min, to_value: max, step: 0.0 };
            descriptor.floating_point_range = vec![range];
        }
        Domain::Choice { of, .. } => descriptor.additional_constraints = format!("one of {}", of.join(", ")),
        Domain::Flag { .. } | Domain::Text { .. } => {}
    }
    descriptor
}

// The numbers of the types are those of rcl_interfaces/msg/ParameterType.

/// As ROS transports it.
pub fn to_message(value: &ParameterValue) -> msg::ParameterValue {
    let blank = msg::ParameterValue::default();
    match value {
        ParameterValue::Bool(v) => msg::ParameterValue { type_: 1, bool_value: *v, ..blank },
        ParameterValue::Integer(v) => msg::ParameterValue { type_: 2, integer_value: *v, ..blank },
        ParameterValue::Double(v) => msg::ParameterValue { type_: 3, double_value: *v, ..blank },
        ParameterValue::String(v) => msg::ParameterValue { type_: 4, string_value: v.clone(), ..blank },
        // No parameter is declared as an array.
        _ => blank,
    }
}

fn from_message(message: &msg::ParameterValue) -> ParameterValue {
    match message.type_ {
        1 => ParameterValue::Bool(message.bool_value),
        2 => ParameterValue::Integer(message.integer_value),
        3 => ParameterValue::Double(message.double_value),
        4 => ParameterValue::String(message.string_value.clone()),
        5 => ParameterValue::ByteArray(message.byte_array_value.clone()),
        6 => ParameterValue::BoolArray(message.bool_array_value.clone()),
        7 => ParameterValue::IntegerArray(message.integer_array_value.clone()),
        8 => ParameterValue::DoubleArray(message.double_array_value.clone()),
        9 => ParameterValue::StringArray(message.string_array_value.clone()),
        _ => ParameterValue::NotSet,
    }
}
