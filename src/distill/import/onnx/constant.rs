//! Constant tensors of an ONNX file.

use anyhow::{bail, ensure, Context};
use half::f16;

use crate::export::messages::{Tensor, BOOL, DOUBLE, FLOAT, FLOAT16, INT32, INT64, INT8, UINT8};

/// The most values that folding may make of constants: what a file itself holds is bounded by its
/// size, but not what `Expand` or `Range` make of it.
pub const MAX_FOLDED: usize = 1 << 22;

/// A constant: dimensions and values, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Constant {
    pub dims: Vec<usize>,
    pub values: Values,
}

/// Values of one of two kinds, whatever type the file has.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    Floats(Vec<f32>),
    Ints(Vec<i64>),
}

impl Values {
    pub fn len(&self) -> usize {
        match self {
            Self::Floats(v) => v.len(),
            Self::Ints(v) => v.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those at `indices`, all of which exist.
    pub fn select(&self, indices: impl Iterator<Item = usize>) -> Self {
        match self {
            Self::Floats(v) => Self::Floats(indices.map(|i| v[i]).collect()),
            Self::Ints(v) => Self::Ints(indices.map(|i| v[i]).collect()),
        }
    }
}

impl Constant {
    /// A list of integers, as shapes and axes are.
    pub fn ints(values: Vec<i64>) -> Self {
        Self { dims: vec![values.len()], values: Values::Ints(values) }
    }

    /// Reads a tensor of a file.
    ///
    /// # Errors
    /// When its values are elsewhere, of a type that no detector's weights have, or too few or too
    /// many.
    pub fn read(tensor: &Tensor) -> anyhow::Result<Self> {
        ensure!(
            tensor.external_data.is_empty(),
            "tensor {:?} is in a file of its own; save the network with its weights inside the file (onnx.save with \
             save_as_external_data=False)",
            tensor.name
        );
        let dims = tensor.dims.iter().map(|&d| usize::try_from(d)).collect::<Result<Vec<_>, _>>();
        let dims = dims.with_context(|| format!("tensor {:?} has a negative dimension", tensor.name))?;
        let count = dims.iter().try_fold(1usize, |product, &d| product.checked_mul(d));
        let values = values(tensor)?;
        ensure!(
            count == Some(values.len()),
            "tensor {:?} has {} values, which is not what its dimensions {dims:?} say",
            tensor.name,
            values.len()
        );
        Ok(Self { dims, values })
    }

    /// Its values as floats.
    pub fn floats(&self) -> Vec<f32> {
        match &self.values {
            Values::Floats(v) => v.clone(),
            Values::Ints(v) => v.iter().map(|&v| v as f32).collect(),
        }
    }

    /// Its values, if they are integers.
    pub fn as_ints(&self) -> Option<&[i64]> {
        match &self.values {
            Values::Ints(v) => Some(v),
            Values::Floats(_) => None,
        }
    }

    /// Its only value, if it has one alone.
    pub fn scalar(&self) -> Option<f32> {
        (self.values.len() == 1).then(|| self.floats()[0])
    }
}

fn values(tensor: &Tensor) -> anyhow::Result<Values> {
    let raw = tensor.raw_data.as_deref();
    let ints = |size: usize, of: fn(&[u8]) -> i64| match raw {
        Some(raw) => raw.chunks_exact(size).map(of).collect(),
        None => tensor.int32_data.iter().map(|&v| i64::from(v)).collect(),
    };
    Ok(match tensor.data_type {
        FLOAT => Values::Floats(match raw {
            Some(raw) => raw.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            None => tensor.float_data.clone(),
        }),
        FLOAT16 => Values::Floats(match raw {
            Some(raw) => raw.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            None => tensor.int32_data.iter().map(|&bits| f16::from_bits(bits as u16).to_f32()).collect(),
        }),
        DOUBLE => Values::Floats(match raw {
            Some(raw) => {
                raw.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("8 bytes")) as f32).collect()
            }
            None => tensor.double_data.iter().map(|&v| v as f32).collect(),
        }),
        INT64 => Values::Ints(match raw {
            Some(raw) => raw.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes"))).collect(),
            None => tensor.int64_data.clone(),
        }),
        INT32 => Values::Ints(ints(4, |b| i64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]])))),
        UINT8 | BOOL => Values::Ints(ints(1, |b| i64::from(b[0]))),
        INT8 => Values::Ints(ints(1, |b| i64::from(b[0] as i8))),
        other => bail!(
            "tensor {:?} has ONNX's element type {other}; floats of 16, 32 and 64 bits and integers are read",
            tensor.name
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_is_read_from_either_of_its_fields() {
        let raw = Tensor::f32("t", &[2], &[1.5, -2.0]);
        let listed = Tensor { raw_data: None, float_data: vec![1.5, -2.0], ..raw.clone() };
        let halves = Tensor { data_type: FLOAT16, raw_data: None, int32_data: vec![0x3e00, 0xc000], ..raw.clone() };
        let expected = Constant { dims: vec![2], values: Values::Floats(vec![1.5, -2.0]) };
        for tensor in [raw, listed, halves] {
            assert_eq!(Constant::read(&tensor).unwrap(), expected);
        }
        assert_eq!(Constant::read(&Tensor::i64("t", &[3, -1])).unwrap(), Constant::ints(vec![3, -1]));
    }

    #[test]
    fn a_tensor_that_does_not_hold_what_it_says_is_refused() {
        let mut tensor = Tensor::f32("t", &[2], &[1.0, 2.0]);
        for dims in [vec![3], vec![-2], vec![i64::MAX, i64::MAX], vec![]] {
            tensor.dims = dims;
            assert!(Constant::read(&tensor).unwrap_err().to_string().contains("\"t\""));
        }
    }
}
