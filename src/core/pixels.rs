//! How a network's input is filled.

/// A network's input in the layout that its engine works on, so that preprocessing writes it
/// directly.
pub trait PixelInput {
    /// Stores normalised R, G, B (and a fourth, finite value that is not used) of pixels of row
    /// `y`, from column `x` on. Every pixel of the input must be stored before a run.
    ///
    /// # Panics
    /// When the pixels do not lie within the input.
    fn store(&mut self, y: usize, x: usize, pixels: &[[f32; 4]]);
}
