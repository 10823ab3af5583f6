//! How a network's input is filled.

/// A network's input in the layout that its engine works on, so that a frame needs no packing of its own.
pub trait PixelInput {
    /// Stores normalised R, G, B (and a finite number that is not used) of some pixels of row `y`, from column `x` on. Every
    /// pixel of the input is to be stored before a run.
    ///
    /// # Panics
    /// When they do not lie within the input.
    fn store(&mut self, y: usize, x: usize, pixels: &[[f32; 4]]);
}
