//! What a packet is, as the heads of its NAL units tell: ITU-T H.264 and H.265, Annex B.

use super::codec::Codec;

/// Whether the packet is a byte stream: zeros and a one at its beginning.
pub fn is_annex_b(packet: &[u8]) -> bool {
    let zeros = packet.iter().take_while(|&&byte| byte == 0).count();
    zeros >= 2 && packet.get(zeros) == Some(&1)
}

/// Whether decoding can begin with the packet.
pub fn is_key_frame(codec: Codec, packet: &[u8]) -> bool {
    Contents::of(codec, packet).key
}

/// What a packet holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Contents {
    /// A picture, or a part of one.
    pub picture: bool,
    /// Whether decoding can begin with it: an IDR picture of H.264, or one that a recovery point
    /// precedes (as encoders with gradual refresh send them), or a random access point of H.265.
    pub key: bool,
}

impl Contents {
    pub fn of(codec: Codec, packet: &[u8]) -> Self {
        let mut contents = Self::default();
        for unit in units(packet) {
            let (picture, key) = match (codec, unit) {
                // H.264, 7.4.1, table 7-1: 1 to 5 are slices, 5 of an IDR picture; 6 is
                // supplemental information, whose payload of type 6 is a recovery point (D.1.8).
                (Codec::H264, [head, rest @ ..]) => match head & 0x1f {
                    5 => (true, true),
                    1..5 => (true, false),
                    6 => (false, rest.first() == Some(&6)),
                    _ => (false, false),
                },
                // H.265, 7.4.2.2, table 7-1: slices are below 32, and 16 to 23 random access points.
                (Codec::H265, [head, ..]) => {
                    let kind = head >> 1 & 0x3f;
                    (kind < 32, (16..24).contains(&kind))
                }
                _ => (false, false),
            };
            contents.picture |= picture;
            contents.key |= key;
        }
        contents
    }
}

/// The units behind each start code, up to the packet's end: only their heads are looked at.
fn units(packet: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = packet;
    std::iter::from_fn(move || {
        let start = rest.windows(3).position(|code| code == [0, 0, 1])?;
        rest = &rest[start + 3..];
        Some(rest)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_byte_stream_begins_with_a_start_code() {
        assert!(is_annex_b(&[0, 0, 1, 0x67]) && is_annex_b(&[0, 0, 0, 1, 0x67]) && is_annex_b(&[0, 0, 0, 0, 1]));
        for other in [&[][..], &[0], &[0, 0], &[0, 1, 0x67], &[0, 0, 2, 0x67], &[1], &[0xff, 0xd8, 0xff]] {
            assert!(!is_annex_b(other), "{other:?}");
        }
    }

    #[test]
    fn key_frames_are_told_by_the_heads_of_their_units() {
        let (parameters, idr, other) = ([0, 0, 0, 1, 0x67, 9], [0, 0, 1, 0x65, 9], [0, 0, 1, 0x41, 9]);
        let h264 = |units: &[&[u8]]| Contents::of(Codec::H264, &units.concat());
        assert_eq!(h264(&[&parameters, &idr]), Contents { picture: true, key: true });
        assert_eq!(h264(&[&parameters, &other]), Contents { picture: true, key: false });
        assert_eq!(h264(&[&parameters]), Contents::default());
        assert_eq!(h264(&[&[0, 0, 1, 6, 6, 1, 0x84], &other]), Contents { picture: true, key: true }, "recovery point");
        assert_eq!(h264(&[&[0, 0, 1, 6, 5, 1, 0x84], &other]), Contents { picture: true, key: false });
        for (kind, picture, key) in [
            (1, true, false),
            (19, true, true),
            (20, true, true),
            (21, true, true),
            (32, false, false),
            (39, false, false),
        ] {
            let contents = Contents::of(Codec::H265, &[0, 0, 1, kind << 1, 1, 0xaf]);
            assert_eq!(contents, Contents { picture, key }, "{kind}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_asked(bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..64)) {
            is_annex_b(&bytes);
            Contents::of(Codec::H264, &bytes);
            Contents::of(Codec::H265, &bytes);
        }
    }
}
