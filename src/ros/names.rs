//! Topic names as ROS will resolve them: expanded, and remapped by the rules of the command line.
//!
//! r2r passes a name to ROS and does not learn what it resolves to. The node needs to know: to name its
//! source in diagnostics, because the compressed topic is below the *remapped* image topic, and
//! because QoS overrides are by full names.

use std::ffi::{c_char, c_int, CStr, CString};
use std::ptr;

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

/// `topic` as a full name, with the remapping rules of the process's command line applied.
///
/// `namespace` and `node` are the node's own. A topic that ROS would not accept is returned
/// unchanged.
pub fn resolve(topic: &str, namespace: &str, node: &str) -> String {
    let full = expand(topic, namespace, node);
    remap(&full, namespace, node).unwrap_or(full)
}

/// The full name of a relative (`image`), private (`~/image`) or full (`/image`) topic.
fn expand(topic: &str, namespace: &str, node: &str) -> String {
    let namespace = namespace.trim_end_matches('/');
    match topic.strip_prefix('~') {
        Some(rest) => format!("{namespace}/{node}{rest}"),
        None if topic.starts_with('/') => topic.to_owned(),
        None => format!("{namespace}/{topic}"),
    }
}

/// `None` if no rule applies.
fn remap(full: &str, namespace: &str, node: &str) -> Option<String> {
    let arguments: Vec<CString> =
        std::env::args_os().map(|a| CString::new(a.into_encoded_bytes())).collect::<Result<_, _>>().ok()?;
    let pointers: Vec<_> = arguments.iter().map(|a| a.as_ptr()).collect();
    let (full, namespace, node) = (CString::new(full).ok()?, CString::new(namespace).ok()?, CString::new(node).ok()?);
    // SAFETY: all texts outlive the calls; `parsed` and `output` are freed with the allocator that
    // made them, and only where the call before says that they were made.
    unsafe {
        let allocator = rcutils_get_default_allocator();
        let mut parsed = rcl_get_zero_initialized_arguments();
        let count = c_int::try_from(pointers.len()).ok()?;
        if rcl_parse_arguments(count, pointers.as_ptr(), allocator, &mut parsed) != RCL_RET_OK as i32 {
            rcutils_reset_error();
            return None;
        }
        let mut output = ptr::null_mut();
        let status = rcl_remap_topic_name(
            &parsed,
            ptr::null(),
            full.as_ptr(),
            node.as_ptr(),
            namespace.as_ptr(),
            allocator,
            &mut output,
        );
        let mut remapped = None;
        if status == RCL_RET_OK as i32 && !output.is_null() {
            remapped = CStr::from_ptr(output).to_str().ok().map(str::to_owned);
            if let Some(deallocate) = allocator.deallocate {
                deallocate(output.cast(), allocator.state);
            }
        }
        rcl_arguments_fini(&mut parsed);
        remapped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_expanded_as_ros_does() {
        assert_eq!(expand("image", "/", "eye"), "/image");
        assert_eq!(expand("image", "/car", "eye"), "/car/image");
        assert_eq!(expand("~/image", "/car", "eye"), "/car/eye/image");
        assert_eq!(expand("/front/image", "/car", "eye"), "/front/image");
    }

    #[test]
    fn without_a_rule_a_name_is_not_remapped() {
        assert_eq!(resolve("image", "/", "eye"), "/image");
    }
}
