//! Tensors of f32, f16 and u32 in a safetensors file, read with their type and shape checked.

use std::collections::HashMap;

use anyhow::{ensure, Context};
use half::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// A type of values that these files hold, little-endian.
pub(crate) trait Element: Copy {
    const DTYPE: Dtype;

    fn write(self, bytes: &mut Vec<u8>);

    /// The values of `bytes`, which are a multiple of an element's size.
    fn read(bytes: &[u8]) -> Vec<Self>;
}

macro_rules! element {
    ($type:ty, $dtype:ident) => {
        impl Element for $type {
            const DTYPE: Dtype = Dtype::$dtype;

            fn write(self, bytes: &mut Vec<u8>) {
                bytes.extend(self.to_le_bytes());
            }

            fn read(bytes: &[u8]) -> Vec<Self> {
                let (elements, _) = bytes.as_chunks();
                elements.iter().map(|&element| Self::from_le_bytes(element)).collect()
            }
        }
    };
}

element!(f32, F32);
element!(f16, F16);
element!(u32, U32);

/// The tensors of a file to be written.
#[derive(Default)]
pub(crate) struct TensorWriter(Vec<(String, Dtype, Vec<usize>, Vec<u8>)>);

impl TensorWriter {
    /// Adds a tensor. `values` must be as many as its `shape` has.
    pub fn push<T: Element>(&mut self, name: impl Into<String>, shape: &[usize], values: impl IntoIterator<Item = T>) {
        let mut bytes = Vec::new();
        values.into_iter().for_each(|value| value.write(&mut bytes));
        self.0.push((name.into(), T::DTYPE, shape.to_vec(), bytes));
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// When a tensor's values do not fit its shape.
    pub fn into_bytes(self, metadata: Option<HashMap<String, String>>) -> anyhow::Result<Vec<u8>> {
        let mut views = Vec::new();
        for (name, dtype, shape, bytes) in &self.0 {
            let view = TensorView::new(*dtype, shape.clone(), bytes).with_context(|| format!("tensor {name}"))?;
            views.push((name, view));
        }
        Ok(safetensors::serialize(views, metadata)?)
    }
}

/// A tensor that was read.
pub(crate) struct TensorData<T> {
    pub shape: Vec<usize>,
    pub values: Vec<T>,
}

/// The tensors of a file in memory.
pub(crate) struct TensorReader<'a>(SafeTensors<'a>);

impl<'a> TensorReader<'a> {
    /// # Errors
    /// When `bytes` are not a safetensors file.
    pub fn new(bytes: &'a [u8]) -> anyhow::Result<Self> {
        Ok(Self(SafeTensors::deserialize(bytes)?))
    }

    /// Reads a tensor; `shape` has `None` for a dimension of any length.
    ///
    /// # Errors
    /// Names the tensor that is missing, or has another type or shape.
    pub fn read<T: Element>(&self, name: &str, shape: &[Option<usize>]) -> anyhow::Result<TensorData<T>> {
        let tensor = self.0.tensor(name).with_context(|| format!("has no tensor {name}"))?;
        let found = tensor.shape();
        let fits = |(expected, &found): (&Option<usize>, &usize)| expected.is_none_or(|expected| expected == found);
        ensure!(
            tensor.dtype() == T::DTYPE && found.len() == shape.len() && shape.iter().zip(found).all(fits),
            "{name} is {:?} {found:?}, not {:?} [{}]",
            tensor.dtype(),
            T::DTYPE,
            shape.iter().map(|side| side.map_or("any".into(), |side| side.to_string())).collect::<Vec<_>>().join(", ")
        );
        Ok(TensorData { shape: found.to_vec(), values: T::read(tensor.data()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let mut writer = TensorWriter::default();
        writer.push("a", &[2, 2], [1.0f32, -2.0, 0.5, f32::INFINITY]);
        writer.push("b", &[3], [1u32, 2, u32::MAX]);
        writer.push("c", &[1], [f16::from_f32(0.25)]);
        writer.into_bytes(None).unwrap()
    }

    #[test]
    fn tensors_are_read_as_they_were_written() {
        let bytes = file();
        let reader = TensorReader::new(&bytes).unwrap();
        let a = reader.read::<f32>("a", &[None, Some(2)]).unwrap();
        assert_eq!((a.shape, a.values), (vec![2, 2], vec![1.0, -2.0, 0.5, f32::INFINITY]));
        assert_eq!(reader.read::<u32>("b", &[None]).unwrap().values, [1, 2, u32::MAX]);
        assert_eq!(reader.read::<f16>("c", &[Some(1)]).unwrap().values, [f16::from_f32(0.25)]);
    }

    #[test]
    fn a_missing_tensor_and_another_type_or_shape_are_named() {
        let bytes = file();
        let reader = TensorReader::new(&bytes).unwrap();
        let error = |result: anyhow::Result<TensorData<f32>>| format!("{:#}", result.err().unwrap());
        assert!(error(reader.read("d", &[None])).contains("has no tensor d"));
        assert_eq!(error(reader.read("a", &[None, Some(3)])), "a is F32 [2, 2], not F32 [any, 3]");
        assert!(error(reader.read("b", &[None])).contains("b is U32 [3], not F32 [any]"));
    }

    #[test]
    fn values_that_do_not_fit_their_shape_are_refused() {
        let mut writer = TensorWriter::default();
        writer.push("a", &[3], [1.0f32]);
        assert!(writer.into_bytes(None).unwrap_err().to_string().contains("tensor a"));
    }
}
