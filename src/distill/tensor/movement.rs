//! What moves values: other shapes, parts of tensors, and tensors of parts.

use candle_core::{bail, Device};

use super::record;
use super::Result;
use super::Tensor::{self, Host, Recorded};

/// What moves values.
impl Tensor {
    /// # Errors
    /// When there are more or fewer values.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        match self {
            Host(tensor) => tensor.reshape(shape).map(Host),
            Recorded(node) => record::reshape(node, shape).map(Recorded),
        }
    }

    /// As rows of so many columns.
    ///
    /// # Errors
    /// When they do not divide its values.
    pub fn rows_of(&self, columns: usize) -> Result<Self> {
        self.reshape(&[self.elem_count() / columns.max(1), columns])
    }

    /// The axes `first` to `last` as one.
    ///
    /// # Errors
    /// When there is no such axis; so for the next ones.
    pub fn flatten(&self, first: usize, last: usize) -> Result<Self> {
        self.dim(last)?;
        let dims = self.dims();
        let one = dims[first..=last].iter().product();
        let shape = [&dims[..first], &[one], &dims[last + 1..]].concat();
        self.reshape(&shape)
    }

    /// All axes from `first` on as one.
    pub fn flatten_from(&self, first: usize) -> Result<Self> {
        self.flatten(first, self.dims().len() - 1)
    }

    /// An axis of size 1 removed.
    pub fn squeeze(&self, axis: usize) -> Result<Self> {
        if self.dim(axis)? != 1 {
            bail!("axis {axis} of a tensor of {:?} is not 1", self.dims());
        }
        let dims = self.dims();
        self.reshape(&[&dims[..axis], &dims[axis + 1..]].concat())
    }

    /// An axis of size 1 added before `axis`.
    pub fn unsqueeze(&self, axis: usize) -> Result<Self> {
        let dims = self.dims();
        if axis > dims.len() {
            bail!("there is no axis {axis} in a tensor of {dims:?}");
        }
        self.reshape(&[&dims[..axis], &[1], &dims[axis..]].concat())
    }

    /// Two axes exchanged.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Self> {
        match self {
            Host(tensor) => tensor.transpose(a, b)?.contiguous().map(Host),
            Recorded(node) => record::transpose(node, a, b).map(Recorded),
        }
    }

    /// `length` of an axis from `start` on.
    pub fn narrow(&self, axis: usize, start: usize, length: usize) -> Result<Self> {
        match self {
            Host(tensor) => tensor.narrow(axis, start, length)?.contiguous().map(Host),
            Recorded(node) => record::narrow(node, axis, start, length).map(Recorded),
        }
    }

    /// The parts of an axis that `index` names, in its order.
    pub fn index_select(&self, index: &[u32], axis: usize) -> Result<Self> {
        match self {
            Host(tensor) => tensor.index_select(&candle_core::Tensor::new(index, &Device::Cpu)?, axis).map(Host),
            Recorded(node) => record::gather(node, index, axis).map(Recorded),
        }
    }

    /// `[rows, …]` of zeros, with these rows where `index` says; several at one place add up.
    pub fn scatter_rows(&self, index: &[u32], rows: usize) -> Result<Self> {
        match self {
            Host(tensor) => {
                let mut shape = tensor.dims().to_vec();
                shape[0] = rows;
                let zeros = candle_core::Tensor::zeros(shape, tensor.dtype(), &Device::Cpu)?;
                zeros.index_add(&candle_core::Tensor::new(index, &Device::Cpu)?, tensor, 0).map(Host)
            }
            Recorded(node) => record::scatter(node, index.into(), 0, rows).map(Recorded),
        }
    }

    /// Zeros before and after along an axis.
    pub fn pad_with_zeros(&self, axis: usize, before: usize, after: usize) -> Result<Self> {
        match self {
            Host(tensor) => tensor.pad_with_zeros(axis, before, after).map(Host),
            Recorded(node) => record::pad(node, axis, before, after).map(Recorded),
        }
    }

    /// The tensors one after the other along an axis.
    ///
    /// # Errors
    /// When their other sizes differ.
    pub fn cat(tensors: &[Self], axis: usize) -> Result<Self> {
        let on_host: Option<Vec<&candle_core::Tensor>> = tensors.iter().map(Self::on_host).collect();
        match on_host {
            Some(tensors) => candle_core::Tensor::cat(&tensors, axis).map(Host),
            None => {
                let nodes: Vec<_> = tensors.iter().map(Self::recorded).collect();
                record::concatenate(nodes, axis).map(Recorded)
            }
        }
    }
}
