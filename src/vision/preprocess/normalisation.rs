//! From colours to the values that a network was trained on.

/// Normalisation of a colour of 0…255 to a network's input: (value − mean) / std, for R, G and B.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalisation {
    pub mean: [f32; 3],
    pub std: [f32; 3],
}
