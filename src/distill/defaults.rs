//! Keys of configurations and indices that are not written while they have their default.

/// For serde's `skip_serializing_if`. A key that came after its file format is left out of what is
/// written while it changes nothing, so that checkpoints and soft targets from before the key
/// remain valid.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
