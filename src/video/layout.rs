//! The layouts of pixels that decoders hand out, by ffmpeg's names.

/// Planes of Y, U and V, or of Y alone, one value in one byte, or in two in little-endian order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Bits of a value: 8, 10 or 12.
    pub bits: u32,
    /// Values of luma, along a row and along a column, that share one of U and V; `None` in grey.
    pub shared: Option<(usize, usize)>,
    /// Whether the name says that all values are used (`yuvj…`).
    pub full_range: bool,
}

impl Layout {
    /// The layout that ffmpeg calls `name`; `None` for others, such as RGB.
    pub fn named(name: &str) -> Option<Self> {
        let (plain, bits) = match (name.strip_suffix("10le"), name.strip_suffix("12le")) {
            (Some(plain), _) => (plain, 10),
            (_, Some(plain)) => (plain, 12),
            _ => (name, 8),
        };
        let (full_range, shared) = match plain {
            "gray" => (false, None),
            "yuv420p" => (false, Some((2, 2))),
            "yuv422p" => (false, Some((2, 1))),
            "yuv444p" => (false, Some((1, 1))),
            // Of 8 bits only.
            "yuvj420p" if bits == 8 => (true, Some((2, 2))),
            "yuvj422p" if bits == 8 => (true, Some((2, 1))),
            "yuvj444p" if bits == 8 => (true, Some((1, 1))),
            _ => return None,
        };
        Some(Self { bits, shared, full_range })
    }

    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        if self.bits == 8 {
            1
        } else {
            2
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_by_name() {
        let of = |name| Layout::named(name).map(|layout| (layout.bits, layout.shared, layout.full_range));
        assert_eq!(of("yuv420p"), Some((8, Some((2, 2)), false)));
        assert_eq!(of("yuvj422p"), Some((8, Some((2, 1)), true)));
        assert_eq!(of("yuv444p12le"), Some((12, Some((1, 1)), false)));
        assert_eq!(of("gray10le"), Some((10, None, false)));
        for name in ["yuv420p10be", "yuvj420p10le", "gbrp", "nv12", "yuv410p", "yuv420p16le", ""] {
            assert_eq!(of(name), None, "{name}");
        }
    }
}
