//! Boxes, and what was found in them.

use serde::{Deserialize, Serialize};

/// An axis-aligned box in pixels; pixel `i` spans `[i, i + 1)`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct BoundingBox {
    /// Left side.
    pub x_min: f32,
    /// Upper side.
    pub y_min: f32,
    /// Right side.
    pub x_max: f32,
    /// Lower side.
    pub y_max: f32,
}

// Inlined by hand: other crates call these in their innermost loops.
impl BoundingBox {
    /// A box from its sides, in pixels.
    #[inline]
    pub fn new(x_min: f32, y_min: f32, x_max: f32, y_max: f32) -> Self {
        Self { x_min, y_min, x_max, y_max }
    }

    /// Pixels; zero for an inverted box.
    #[inline]
    pub fn width(&self) -> f32 {
        (self.x_max - self.x_min).max(0.0)
    }

    /// Pixels; zero for an inverted box.
    #[inline]
    pub fn height(&self) -> f32 {
        (self.y_max - self.y_min).max(0.0)
    }

    /// Square pixels.
    #[inline]
    pub fn area(&self) -> f32 {
        self.width() * self.height()
    }

    /// Centre (x, y).
    #[inline]
    pub fn center(&self) -> (f32, f32) {
        (0.5 * (self.x_min + self.x_max), 0.5 * (self.y_min + self.y_max))
    }

    /// Intersection over union, 0 to 1; 0 for two empty boxes.
    #[inline]
    pub fn iou(&self, other: &Self) -> f32 {
        let common = Self {
            x_min: self.x_min.max(other.x_min),
            y_min: self.y_min.max(other.y_min),
            x_max: self.x_max.min(other.x_max),
            y_max: self.y_max.min(other.y_max),
        }
        .area();
        let union = self.area() + other.area() - common;
        if union > 0.0 {
            common / union
        } else {
            0.0
        }
    }

    /// Whether all sides are finite.
    #[inline]
    pub fn is_finite(&self) -> bool {
        [self.x_min, self.y_min, self.x_max, self.y_max].iter().all(|v| v.is_finite())
    }
}

/// One object in one frame.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// Index into the detection classes of the student's architecture.
    pub class: usize,
    /// 0 to 1.
    pub score: f32,
    /// Where it is, in pixels of the source image unless its maker says otherwise.
    pub bbox: BoundingBox,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iou_of_hand_counted_boxes() {
        let a = BoundingBox::new(0.0, 0.0, 4.0, 4.0);
        assert_eq!(a.iou(&a), 1.0);
        assert_eq!(a.iou(&BoundingBox::new(2.0, 0.0, 6.0, 4.0)), 8.0 / 24.0);
        assert_eq!(a.iou(&BoundingBox::new(4.0, 0.0, 6.0, 4.0)), 0.0);
        assert_eq!(BoundingBox::default().iou(&BoundingBox::default()), 0.0);
    }

    #[test]
    fn an_inverted_box_has_no_area() {
        assert_eq!(BoundingBox::new(3.0, 3.0, 1.0, 1.0).area(), 0.0);
    }
}
