//! Tensors of f32, f16, u16 and u32 in a safetensors file, read with their type and shape checked.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{ensure, Context};
use half::f16;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorView};

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
element!(u16, U16);
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

/// Where a tensor's values lie in its file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TensorPlace {
    pub shape: Vec<usize>,
    /// From the file's beginning, in bytes.
    pub offset: u64,
    pub bytes: usize,
}

impl TensorPlace {
    /// The values, out of the file.
    ///
    /// # Errors
    /// When the file is shorter than it was, or cannot be read.
    pub fn read<T: Element>(&self, file: &File) -> std::io::Result<Vec<T>> {
        let mut bytes = vec![0; self.bytes];
        file.read_exact_at(&mut bytes, self.offset)?;
        Ok(T::read(&bytes))
    }
}

/// The tensors of a file, in memory or on disk.
pub(crate) struct TensorReader<'a> {
    header: Metadata,
    /// Where the values begin in the file, in bytes.
    start: usize,
    source: Source<'a>,
}

enum Source<'a> {
    Memory(&'a [u8]),
    Disk(&'a File),
}

/// Bytes before a header: its length.
const LENGTH: usize = 8;
/// Longer headers are refused, as by the safetensors library.
const MAX_HEADER: u64 = 100_000_000;

impl<'a> TensorReader<'a> {
    /// # Errors
    /// When `bytes` are not a safetensors file.
    pub fn new(bytes: &'a [u8]) -> anyhow::Result<Self> {
        let (length, header) = SafeTensors::read_metadata(bytes)?;
        Ok(Self { header, start: LENGTH + length, source: Source::Memory(bytes) })
    }

    /// Reads only the header; tensors are read from the file when they are asked for.
    ///
    /// # Errors
    /// When the file cannot be read or is not a safetensors file.
    pub fn open(file: &'a File) -> anyhow::Result<Self> {
        let all = file.metadata()?.len();
        let mut length = [0; LENGTH];
        file.read_exact_at(&mut length, 0).context("too short for a safetensors file")?;
        let length = u64::from_le_bytes(length);
        ensure!(length <= all.min(MAX_HEADER), "its header is longer than the file");
        let mut header = vec![0; length as usize];
        file.read_exact_at(&mut header, LENGTH as u64).context("its header is cut short")?;
        let header: Metadata = serde_json::from_slice(&header).context("its header is damaged")?;
        let start = LENGTH + length as usize;
        ensure!((start + header.data_len()) as u64 == all, "it has {all} bytes, not as many as its header says");
        Ok(Self { header, start, source: Source::Disk(file) })
    }

    /// Finds a tensor; `shape` has `None` for a dimension of any length.
    ///
    /// # Errors
    /// Names the tensor that is missing, or has another type or shape.
    pub fn find<T: Element>(&self, name: &str, shape: &[Option<usize>]) -> anyhow::Result<TensorPlace> {
        let tensor = self.header.info(name).with_context(|| format!("has no tensor {name}"))?;
        let found = &tensor.shape;
        let fits = |(expected, &found): (&Option<usize>, &usize)| expected.is_none_or(|expected| expected == found);
        ensure!(
            tensor.dtype == T::DTYPE && found.len() == shape.len() && shape.iter().zip(found).all(fits),
            "{name} is {:?} {found:?}, not {:?} [{}]",
            tensor.dtype,
            T::DTYPE,
            shape.iter().map(|side| side.map_or("any".into(), |side| side.to_string())).collect::<Vec<_>>().join(", ")
        );
        let (from, to) = tensor.data_offsets;
        Ok(TensorPlace { shape: found.clone(), offset: (self.start + from) as u64, bytes: to - from })
    }

    /// Reads a tensor; `shape` has `None` for a dimension of any length.
    ///
    /// # Errors
    /// Names the tensor that is missing, or has another type or shape; when the file cannot be
    /// read.
    pub fn read<T: Element>(&self, name: &str, shape: &[Option<usize>]) -> anyhow::Result<TensorData<T>> {
        let place = self.find::<T>(name, shape)?;
        let values = match self.source {
            Source::Memory(bytes) => T::read(&bytes[place.offset as usize..][..place.bytes]),
            Source::Disk(file) => place.read(file)?,
        };
        Ok(TensorData { shape: place.shape, values })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

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
    fn a_file_on_disk_is_read_as_one_in_memory() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&self::file()).unwrap();
        let (bytes, reader) = (self::file(), TensorReader::open(&file).unwrap());
        let memory = TensorReader::new(&bytes).unwrap();
        let place = reader.find::<u32>("b", &[None]).unwrap();
        assert_eq!(place, memory.find::<u32>("b", &[None]).unwrap());
        assert_eq!(place.read::<u32>(&file).unwrap(), [1, 2, u32::MAX]);
        let a = |reader: &TensorReader| reader.read::<f32>("a", &[None, Some(2)]).unwrap().values;
        assert_eq!(a(&reader), a(&memory));
    }

    #[test]
    fn a_file_that_is_cut_short_anywhere_is_refused() {
        let bytes = file();
        for length in 0..bytes.len() {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes[..length]).unwrap();
            assert!(TensorReader::open(&file).is_err(), "{length} bytes");
        }
        let mut longer = tempfile::tempfile().unwrap();
        longer.write_all(&[&bytes[..], &[0]].concat()).unwrap();
        assert!(TensorReader::open(&longer).is_err());
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
