//! Arguments as `rcl` parses them.

use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::ptr;

use r2r::ParameterValue;
use r2r_rcl::*;

extern "C" {
    /// Of `rcl/remap.h`, which r2r_rcl links but does not bind.
    fn rcl_remap_topic_name(
        local_arguments: *const rcl_arguments_t,
        global_arguments: *const rcl_arguments_t,
        topic_name: *const c_char,
        node_name: *const c_char,
        node_namespace: *const c_char,
        allocator: rcl_allocator_t,
        output: *mut *mut c_char,
    ) -> rcl_ret_t;
}

/// The parameters of the nodes that one name or wildcard stands for, in the order in which ROS has
/// them.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeParameters {
    /// Such as `/perception`, `/**` or `/front/*`.
    pub pattern: String,
    pub values: Vec<(String, ParameterValue)>,
}

/// A parsed command line.
pub struct RosArguments {
    line: Vec<String>,
    parsed: rcl_arguments_t,
}

impl RosArguments {
    /// Of a command line, whose first word is the program's name.
    ///
    /// # Errors
    /// ROS's own sentence on a rule or a file that it cannot read.
    pub fn parse(line: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let line: Vec<String> = line.into_iter().collect();
        let texts: Result<Vec<_>, _> = line.iter().map(|a| CString::new(a.as_str())).collect();
        let texts = texts.map_err(|_| "an argument holds a zero byte".to_owned())?;
        let pointers: Vec<_> = texts.iter().map(|a| a.as_ptr()).collect();
        let count = c_int::try_from(pointers.len()).map_err(|_| "there are too many arguments".to_owned())?;
        // SAFETY: the texts outlive the call, which copies what it keeps; `parsed` is initialised, and
        // ROS leaves it so when it fails.
        unsafe {
            let mut parsed = rcl_get_zero_initialized_arguments();
            let status = rcl_parse_arguments(count, pointers.as_ptr(), rcutils_get_default_allocator(), &mut parsed);
            if status != RCL_RET_OK as i32 {
                return Err(last_error());
            }
            Ok(Self { line, parsed })
        }
    }

    /// Of this process.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn of_process() -> Result<Self, String> {
        Self::parse(std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()))
    }

    /// Those after `--ros-args` that ROS does not understand.
    pub fn unknown(&self) -> Vec<&str> {
        // SAFETY: `parsed` is valid; ROS allocates as many indices as it counts, of which this frees
        // the memory.
        unsafe {
            let allocator = rcutils_get_default_allocator();
            let count = usize::try_from(rcl_arguments_get_count_unparsed_ros(&self.parsed)).unwrap_or(0);
            let mut indices = ptr::null_mut();
            if count == 0
                || rcl_arguments_get_unparsed_ros(&self.parsed, allocator, &mut indices) != RCL_RET_OK as i32
                || indices.is_null()
            {
                return Vec::new();
            }
            let known = std::slice::from_raw_parts(indices, count).to_vec();
            free(allocator, indices.cast());
            known.into_iter().filter_map(|i| self.line.get(usize::try_from(i).ok()?).map(String::as_str)).collect()
        }
    }

    /// The parameters of all files and rules, merged as ROS does.
    pub fn parameters(&self) -> Vec<NodeParameters> {
        let mut merged = ptr::null_mut();
        // SAFETY: `parsed` is valid; what ROS returns is a copy, which is freed here.
        unsafe {
            let status = rcl_arguments_get_param_overrides(&self.parsed, &mut merged);
            if status != RCL_RET_OK as i32 || merged.is_null() {
                return Vec::new();
            }
            let found = copied(merged);
            rcl_yaml_node_struct_fini(merged);
            found
        }
    }

    /// The parameter files, in the order in which they are given.
    pub fn files(&self) -> Vec<String> {
        self.values_of(&["--params-file"])
    }

    /// The names of the parameters that rules such as `-p name:=value` give, without the node that
    /// may stand before them.
    pub fn named(&self) -> Vec<String> {
        let name = |rule: String| {
            let name = rule.split_once(":=").map_or(rule.as_str(), |(name, _)| name).to_owned();
            name.split_once(':').map_or(name.clone(), |(_, name)| name.to_owned())
        };
        self.values_of(&["-p", "--param"]).into_iter().map(name).collect()
    }

    /// What follows each of the `flags` after `--ros-args`.
    fn values_of(&self, flags: &[&str]) -> Vec<String> {
        let (mut found, mut ros, mut words) = (Vec::new(), false, self.line.iter().skip(1));
        while let Some(word) = words.next() {
            match word.as_str() {
                "--ros-args" => ros = true,
                "--" => ros = false,
                flag if ros && flags.contains(&flag) => found.extend(words.next().cloned()),
                _ => {}
            }
        }
        found
    }

    /// The name that `full`, a full topic name of a node, is remapped to; `None` if no rule applies.
    pub fn remapped(&self, full: &str, namespace: &str, node: &str) -> Option<String> {
        let (full, namespace, node) =
            (CString::new(full).ok()?, CString::new(namespace).ok()?, CString::new(node).ok()?);
        // SAFETY: all texts outlive the call; `output` is freed with the allocator that made it.
        unsafe {
            let (allocator, mut output) = (rcutils_get_default_allocator(), ptr::null_mut());
            let (full, node, namespace) = (full.as_ptr(), node.as_ptr(), namespace.as_ptr());
            let status = rcl_remap_topic_name(&self.parsed, ptr::null(), full, node, namespace, allocator, &mut output);
            if status != RCL_RET_OK as i32 || output.is_null() {
                rcutils_reset_error();
                return None;
            }
            let remapped = CStr::from_ptr(output).to_str().ok().map(str::to_owned);
            free(allocator, output.cast());
            remapped
        }
    }
}

impl Drop for RosArguments {
    fn drop(&mut self) {
        // SAFETY: it was initialised, and is not used again.
        unsafe { rcl_arguments_fini(&mut self.parsed) };
    }
}

/// The parameters in one file.
///
/// # Errors
/// ROS's own sentence on a file that it cannot read.
pub fn read_file(path: &str) -> Result<Vec<NodeParameters>, String> {
    let text = CString::new(path).map_err(|_| "its name holds a zero byte".to_owned())?;
    // SAFETY: the text outlives the call; what ROS initialised is freed here in any case.
    unsafe {
        let read = rcl_yaml_node_struct_init(rcutils_get_default_allocator());
        if read.is_null() {
            return Err(last_error());
        }
        let found = if rcl_parse_yaml_file(text.as_ptr(), read) { Ok(copied(read)) } else { Err(last_error()) };
        rcl_yaml_node_struct_fini(read);
        found
    }
}

/// # Safety
/// `parameters` is what ROS made.
unsafe fn copied(parameters: *const rcl_params_t) -> Vec<NodeParameters> {
    let nodes = slice((*parameters).node_names, (*parameters).num_nodes);
    let values = slice((*parameters).params, (*parameters).num_nodes);
    let of_node = |(&pattern, node): (&*mut c_char, &rcl_node_params_t)| {
        let names = slice(node.parameter_names, node.num_params).iter().map(|&name| text(name));
        let values = slice(node.parameter_values, node.num_params).iter().map(|v| value(v));
        NodeParameters { pattern: text(pattern), values: names.zip(values).collect() }
    };
    nodes.iter().zip(values).map(of_node).collect()
}

/// # Safety
/// `v` is what ROS made: at most one pointer is set, to a value of its type.
unsafe fn value(v: &rcl_variant_t) -> ParameterValue {
    if let Some(v) = v.bool_value.as_ref() {
        ParameterValue::Bool(*v)
    } else if let Some(v) = v.integer_value.as_ref() {
        ParameterValue::Integer(*v)
    } else if let Some(v) = v.double_value.as_ref() {
        ParameterValue::Double(*v)
    } else if !v.string_value.is_null() {
        ParameterValue::String(text(v.string_value))
    } else if let Some(v) = v.byte_array_value.as_ref() {
        ParameterValue::ByteArray(slice(v.values, v.size).to_vec())
    } else if let Some(v) = v.bool_array_value.as_ref() {
        ParameterValue::BoolArray(slice(v.values, v.size).to_vec())
    } else if let Some(v) = v.integer_array_value.as_ref() {
        ParameterValue::IntegerArray(slice(v.values, v.size).to_vec())
    } else if let Some(v) = v.double_array_value.as_ref() {
        ParameterValue::DoubleArray(slice(v.values, v.size).to_vec())
    } else if let Some(v) = v.string_array_value.as_ref() {
        ParameterValue::StringArray(slice(v.data, v.size).iter().map(|&s| text(s)).collect())
    } else {
        ParameterValue::NotSet
    }
}

/// # Safety
/// `first` is null or the first of `count` values that outlive the slice.
unsafe fn slice<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if first.is_null() {
        return &[];
    }
    std::slice::from_raw_parts(first, count)
}

/// # Safety
/// `text` is null or ends with a zero byte.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    CStr::from_ptr(text).to_string_lossy().into_owned()
}

/// # Safety
/// `memory` was made by `allocator`.
unsafe fn free(allocator: rcl_allocator_t, memory: *mut c_void) {
    if let Some(deallocate) = allocator.deallocate {
        deallocate(memory, allocator.state);
    }
}

/// ROS's sentence on what failed last, without the lines of its sources; resets it.
fn last_error() -> String {
    // SAFETY: the text is copied by value, and ends with a zero byte.
    let sentence = unsafe {
        let error = rcutils_get_error_string();
        let sentence = CStr::from_ptr(error.str_.as_ptr()).to_string_lossy().into_owned();
        rcutils_reset_error();
        sentence
    };
    without_places(&sentence)
}

/// Without `, at ./src/rcl/arguments.c:343`.
fn without_places(sentence: &str) -> String {
    let is_place = |part: &&str| {
        let source = part.rsplit_once(':').map_or(*part, |(file, _)| file);
        !(source.ends_with(".c") || source.ends_with(".cpp"))
    };
    sentence.split(", at ").filter(is_place).collect::<Vec<_>>().join(", at ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<RosArguments, String> {
        RosArguments::parse(std::iter::once("node".to_owned()).chain(line.split_whitespace().map(String::from)))
    }

    #[test]
    fn what_ros_does_not_understand_is_found() {
        let known = parsed("--other a:=b --ros-args -p a:=1 -r b:=c --log-level warn -- c:=d").unwrap();
        assert_eq!(known.unknown(), Vec::<&str>::new());
        let unknown = parsed("--ros-args -p a:=1 deadline_ms:=80 --param-file x.yaml").unwrap();
        assert_eq!(unknown.unknown(), ["deadline_ms:=80", "--param-file", "x.yaml"]);
    }

    #[test]
    fn a_rule_that_does_not_parse_is_named_without_lines_of_sources() {
        for (line, rule) in [
            ("--ros-args -p deadline_ms=80", "deadline_ms=80"),
            ("--ros-args -p", "-p"),
            ("--ros-args --params-file no/such/file.yaml", "no/such/file.yaml"),
        ] {
            let sentence = parsed(line).err().unwrap();
            assert!(sentence.contains(rule) && !sentence.contains(".c:"), "{sentence}");
        }
    }

    #[test]
    fn every_type_of_parameter_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("all.yaml");
        let text =
            "/**:\n  ros__parameters: {a: true, b: 2, c: 0.5, d: text, e: [true], f: [1, 2], g: [0.5], h: [left, right]}\n";
        std::fs::write(&path, text).unwrap();
        let found = read_file(path.to_str().unwrap()).unwrap();
        assert_eq!(found[0].pattern, "/**");
        let values: Vec<_> = found[0].values.iter().map(|(_, value)| value.clone()).collect();
        let expected = [
            ParameterValue::Bool(true),
            ParameterValue::Integer(2),
            ParameterValue::Double(0.5),
            ParameterValue::String("text".into()),
            ParameterValue::BoolArray(vec![true]),
            ParameterValue::IntegerArray(vec![1, 2]),
            ParameterValue::DoubleArray(vec![0.5]),
            ParameterValue::StringArray(vec!["left".into(), "right".into()]),
        ];
        assert_eq!(values, expected);
    }

    #[test]
    fn names_of_rules_are_read_with_and_without_a_node() {
        let line = parsed("-p own:=1 --ros-args -p a.b:=1 --param eye:c:='x:=y' -- -p d:=1").unwrap();
        assert_eq!(line.named(), ["a.b", "c"]);
        assert_eq!(parsed("--ros-args -p a:=1").unwrap().parameters()[0].pattern, "/**");
    }
}
