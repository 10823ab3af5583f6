//! The six parameter services that `ros2 param`, launch files and rqt speak to, and `/parameter_events`.
//!
//! r2r has these too, but its descriptors carry neither ranges nor read-only flags.

use futures::{FutureExt, Stream, StreamExt};
use r2r::rcl_interfaces::msg::{self, ParameterDescriptor, ParameterEvent, SetParametersResult};
use r2r::rcl_interfaces::srv::{
    DescribeParameters, GetParameterTypes, GetParameters, ListParameters, SetParameters, SetParametersAtomically,
};
use r2r::{Node, ParameterValue, Publisher, QosProfile, ServiceRequest, WrappedServiceTypeSupport};

use super::parameters::{declaration, Declaration, Domain, Parameters, DECLARATIONS};

type Requests<T> = Box<dyn Stream<Item = ServiceRequest<T>> + Unpin>;

/// The services of one node. All work is done in [`serve`](Self::serve), on the thread that spins the node.
pub struct ParameterServices {
    set: Requests<SetParameters::Service>,
    set_atomically: Requests<SetParametersAtomically::Service>,
    get: Requests<GetParameters::Service>,
    types: Requests<GetParameterTypes::Service>,
    list: Requests<ListParameters::Service>,
    describe: Requests<DescribeParameters::Service>,
    events: Publisher<ParameterEvent>,
    node_name: String,
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
        })
    }

    /// Answers every waiting request without blocking. Returns whether any parameter was set.
    ///
    /// A client that has gone before its answer is no error of ours, so failures to respond are passed over.
    pub fn serve(&mut self, parameters: &mut Parameters) -> bool {
        let mut changed = Vec::new();
        while let Some(request) = next(&mut self.set) {
            let set = |p: &msg::Parameter| match parameters.set(&p.name, from_message(&p.value)) {
                Ok(()) => {
                    changed.push(p.name.clone());
                    accepted()
                }
                Err(refusal) => refused(refusal),
            };
            let results = request.message.parameters.iter().map(set).collect();
            let _ = request.respond(SetParameters::Response { results });
        }
        while let Some(request) = next(&mut self.set_atomically) {
            let result = set_all(parameters, &request.message.parameters, &mut changed);
            let _ = request.respond(SetParametersAtomically::Response { result });
        }
        while let Some(request) = next(&mut self.get) {
            let value = |name: &String| to_message(parameters.get(name).unwrap_or(&ParameterValue::NotSet));
            let values = request.message.names.iter().map(value).collect();
            let _ = request.respond(GetParameters::Response { values });
        }
        while let Some(request) = next(&mut self.types) {
            let kind = |name: &String| parameters.get(name).map_or(0, |value| to_message(value).type_);
            let types = request.message.names.iter().map(kind).collect();
            let _ = request.respond(GetParameterTypes::Response { types });
        }
        while let Some(request) = next(&mut self.list) {
            let names = DECLARATIONS.iter().map(|d| d.name.to_owned());
            let wanted = &request.message.prefixes;
            let names = names.filter(|name| wanted.is_empty() || wanted.contains(name)).collect();
            let result = msg::ListParametersResult { names, prefixes: Vec::new() };
            let _ = request.respond(ListParameters::Response { result });
        }
        while let Some(request) = next(&mut self.describe) {
            let descriptors =
                request.message.names.iter().filter_map(|n| declaration(n).ok()).map(descriptor).collect();
            let _ = request.respond(DescribeParameters::Response { descriptors });
        }
        self.announce(parameters, &changed);
        !changed.is_empty()
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

fn next<T: WrappedServiceTypeSupport>(requests: &mut Requests<T>) -> Option<ServiceRequest<T>> {
    requests.next().now_or_never().flatten()
}

fn set_all(parameters: &mut Parameters, wanted: &[msg::Parameter], changed: &mut Vec<String>) -> SetParametersResult {
    let mut all = parameters.clone();
    for p in wanted {
        if let Err(refusal) = all.set(&p.name, from_message(&p.value)) {
            return refused(refusal);
        }
    }
    *parameters = all;
    changed.extend(wanted.iter().map(|p| p.name.clone()));
    accepted()
}

fn accepted() -> SetParametersResult {
    SetParametersResult { successful: true, reason: String::new() }
}

fn refused(refusal: impl ToString) -> SetParametersResult {
    SetParametersResult { successful: false, reason: refusal.to_string() }
}

/// What `ros2 param describe` shows.
fn descriptor(d: &'static Declaration) -> ParameterDescriptor {
    let mut descriptor = ParameterDescriptor {
        name: d.name.to_owned(),
        type_: to_message(&d.default()).type_,
        description: d.description.to_owned(),
        read_only: !d.live,
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

fn to_message(value: &ParameterValue) -> msg::ParameterValue {
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
