//! Tensors of weights files: to bytes and back.

use half::f16;
use safetensors::tensor::{Dtype, TensorView};

/// A tensor to be written to a file: its name, type, shape and bytes.
pub(crate) type NamedTensor = (String, Dtype, Vec<usize>, Vec<u8>);

/// The safetensors file of `tensors`, whose names differ.
pub(crate) fn serialize(tensors: &[NamedTensor]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        (name, TensorView::new(*dtype, shape.clone(), data).expect("lengths follow from the shape"))
    });
    safetensors::serialize(views, None).expect("names are unique")
}

/// Values in half precision, little-endian.
pub(crate) fn f16_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()
}

/// Values in single precision, little-endian.
pub(crate) fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// The values of an F16 or F32 tensor; `None` for other types.
pub fn to_f32(tensor: &TensorView) -> Option<Vec<f32>> {
    match tensor.dtype() {
        Dtype::F16 => Some(tensor.data().chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()),
        Dtype::F32 => {
            Some(tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
        }
        _ => None,
    }
}
