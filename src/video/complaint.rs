//! What libavcodec's log says of a picture.

/// `AV_LOG_ERROR`: this and below is an error.
const LOG_ERROR: i32 = 16;

/// What the library complains of: it hides damage in pictures as well as it can, and tells its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Complaint {
    /// The picture is of a size that is not permitted.
    Size,
    /// Bits are wrong or missing, or a picture that is referred to is.
    Damage,
}

impl Complaint {
    /// What a line of the log means for the picture, if anything; `format` is its text as printf has
    /// it.
    pub fn of(level: i32, format: &[u8]) -> Option<Self> {
        // Pictures that are missing and made up, and parts of one: no errors in the library's eyes.
        let concealed = format.starts_with(b"Frame num gap") || format.starts_with(b"concealing ");
        // Encoders that keep more pictures than they announce: only the oldest goes.
        let harmless = format.starts_with(b"number of reference frames");
        match level & 0xff {
            _ if concealed => Some(Self::Damage),
            level if level > LOG_ERROR || harmless => None,
            _ if format.starts_with(b"Picture size") => Some(Self::Size),
            _ => Some(Self::Damage),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_up_is_damage_and_what_is_harmless_is_none() {
        assert_eq!(Complaint::of(48, b"Frame num gap %d %d\n"), Some(Complaint::Damage));
        assert_eq!(Complaint::of(32, b"concealing %d DC"), Some(Complaint::Damage));
        assert_eq!(Complaint::of(16, b"error while decoding MB %d %d"), Some(Complaint::Damage));
        assert_eq!(Complaint::of(16, b"Picture size %ux%u is invalid\n"), Some(Complaint::Size));
        assert_eq!(Complaint::of(24, b"a warning"), None);
        assert_eq!(Complaint::of(16, b"number of reference frames (%d+%d) exceeds max"), None);
    }
}
