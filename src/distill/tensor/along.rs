//! Sums, means, the largest and softmax along axes, and products of matrices.

use std::sync::Arc;

use super::record::{self, Node, Operation};
use super::Result;
use super::Tensor::{self, Host, Recorded};

/// Over an axis or all.
impl Tensor {
    /// # Errors
    /// When there is no such axis; so for the next ones.
    pub fn sum_keepdim(&self, axis: usize) -> Result<Self> {
        match self {
            Host(tensor) => tensor.sum_keepdim(axis).map(Host),
            Recorded(node) => record::sum(node, axis..axis + 1).map(Recorded),
        }
    }

    #[allow(missing_docs)]
    pub fn sum(&self, axis: usize) -> Result<Self> {
        match self {
            Host(tensor) => tensor.sum(axis).map(Host),
            Recorded(_) => self.sum_keepdim(axis)?.squeeze(axis),
        }
    }

    #[allow(missing_docs)]
    pub fn sum_all(&self) -> Result<Self> {
        match self {
            Host(tensor) => tensor.sum_all().map(Host),
            Recorded(node) => record::reshape(&record::sum(node, 0..node.shape.len())?, &[]).map(Recorded),
        }
    }

    #[allow(missing_docs)]
    pub fn mean_keepdim(&self, axis: usize) -> Result<Self> {
        match self {
            Host(tensor) => tensor.mean_keepdim(axis).map(Host),
            Recorded(_) => self.sum_keepdim(axis)?.affine(1.0 / self.dim(axis)? as f64, 0.0),
        }
    }

    #[allow(missing_docs)]
    pub fn mean(&self, axis: usize) -> Result<Self> {
        match self {
            Host(tensor) => tensor.mean(axis).map(Host),
            Recorded(_) => self.mean_keepdim(axis)?.squeeze(axis),
        }
    }

    #[allow(missing_docs)]
    pub fn mean_all(&self) -> Result<Self> {
        match self {
            Host(tensor) => tensor.mean_all().map(Host),
            Recorded(_) => self.sum_all()?.affine(1.0 / self.elem_count().max(1) as f64, 0.0),
        }
    }

    /// The largest values along an axis; not to be differentiated.
    pub fn max(&self, axis: usize) -> Result<Self> {
        match self {
            Host(tensor) => tensor.max(axis).map(Host),
            Recorded(node) => Recorded(record::max(node, axis)?).squeeze(axis),
        }
    }

    /// `[rows, classes]`: 1 at the first of the largest values of each row, else 0; not
    /// differentiated.
    pub fn one_hot_of_max(&self) -> Result<Self> {
        let (rows, classes) = self.dims2()?;
        match self {
            Host(tensor) => {
                let mut one_hot = vec![0.0; rows * classes];
                for (row, largest) in one_hot.chunks_mut(classes).zip(tensor.argmax(1)?.to_vec1::<u32>()?) {
                    row[largest as usize] = 1.0;
                }
                Self::from_vec(one_hot, &[rows, classes])
            }
            Recorded(node) => {
                Ok(Recorded(Node::new(Operation::OneHotOfMax, vec![rows, classes], vec![Arc::clone(node)])))
            }
        }
    }

    /// Over the last axis.
    pub fn log_softmax(&self) -> Result<Self> {
        match self {
            Host(tensor) => candle_nn::ops::log_softmax(tensor, candle_core::D::Minus1).map(Host),
            Recorded(node) => {
                Ok(Recorded(Node::new(Operation::LogSoftmax, node.shape.clone(), vec![Arc::clone(node)])))
            }
        }
    }

    /// Over the last axis.
    pub fn softmax(&self) -> Result<Self> {
        match self {
            Host(tensor) => candle_nn::ops::softmax(tensor, candle_core::D::Minus1).map(Host),
            Recorded(_) => self.log_softmax()?.exp(),
        }
    }

    /// Of `[…, rows, k]` and `[…, k, columns]`; of both or of neither side there may be several.
    pub fn matmul(&self, other: &Self) -> Result<Self> {
        match (self, other) {
            (Host(a), Host(b)) => a.broadcast_matmul(b).map(Host),
            _ => record::matmul(&self.recorded(), &other.recorded()).map(Recorded),
        }
    }
}
