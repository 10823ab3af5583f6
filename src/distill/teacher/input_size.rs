//! The size of a teacher's input: `size = 640`, or `size = [640, 384]` if it is not square.

use serde::{Deserialize, Serialize};

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct InputSize {
    pub width: u32,
    pub height: u32,
}

/// As it is written: a square by its side, so that what was written before rectangles remains the
/// same.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Square(u32),
    Rectangle([u32; 2]),
}

impl From<Written> for InputSize {
    fn from(written: Written) -> Self {
        let [width, height] = match written {
            Written::Square(side) => [side, side],
            Written::Rectangle(sides) => sides,
        };
        Self { width, height }
    }
}

impl From<InputSize> for Written {
    fn from(size: InputSize) -> Self {
        if size.width == size.height {
            Self::Square(size.width)
        } else {
            Self::Rectangle([size.width, size.height])
        }
    }
}

impl InputSize {
    /// A square input.
    pub fn square(side: u32) -> Self {
        Self { width: side, height: side }
    }
}
