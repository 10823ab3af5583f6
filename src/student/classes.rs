//! The names of a head's classes.

/// Classes that a head may have: 1 to 255, since a mask has one byte a pixel.
///
/// # Errors
/// A sentence naming the `field`, and the name at fault.
pub fn check_classes(field: &str, classes: &[String]) -> Result<(), String> {
    if classes.is_empty() || classes.len() > 255 {
        return Err(format!("{field} counts {}; it must count 1 to 255", classes.len()));
    }
    for (i, name) in classes.iter().enumerate() {
        if name.trim() != name || name.is_empty() || name.len() > 200 || name.chars().any(char::is_control) {
            return Err(format!("{field} has the name {name:?}; a name is 1 to 200 bytes without spaces around it"));
        }
        if classes[..i].contains(name) {
            return Err(format!("{field} names {name:?} twice; leave one of them out"));
        }
    }
    Ok(())
}
