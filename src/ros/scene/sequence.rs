//! Native sequences with room for a fixed number of elements.

/// Resizes a native sequence to `count` elements, or its capacity if that is less, and gives them.
///
/// A sequence that was made with `capacity` elements may have any size up to it: ROS sends `size`
/// elements and frees `capacity`.
macro_rules! resize {
    ($sequence:expr, $count:expr) => {{
        let sequence = &mut $sequence;
        sequence.size = usize::min($count, sequence.capacity);
        match sequence.size {
            0 => &mut [][..],
            // SAFETY: the message was made with `capacity` initialised elements there, and `size`
            // is no more than that.
            size => unsafe { std::slice::from_raw_parts_mut(sequence.data, size) },
        }
    }};
}
pub(super) use resize;

/// A class's name, empty for an unknown class.
pub(super) fn name_of(names: &[String], class: usize) -> &[u8] {
    names.get(class).map_or(&[], |name| name.as_bytes())
}

/// Reserves room for class names in a message: a longer one allocates once, with the first frame
/// that has it.
pub(super) const LONG_NAME: &str = "a name as long as the names of classes usually are, and longer";
