//! The tensors that losses are written with.
//!
//! On the CPU they are candle's: each operation is computed at once, and candle's autograd
//! differentiates the loss. In a training on a GPU the same lines only record what is to be computed
//! ([`record`]), with the gradients ([`gradient`]), and the record becomes part of the step's graph on
//! the device. So a loss is written once, and reads no value: a shape must not depend on one.
//!
//! Names are candle's. Values are in single precision. What can be done is in `pointwise`, `along`, `movement` and
//! `operators`.

mod along;
pub mod gradient;
mod movement;
mod operators;
mod pointwise;
pub mod record;

use std::sync::Arc;

pub use candle_core::Result;
use candle_core::{bail, Device};

use record::{Node, Operation};

/// See the module.
#[derive(Debug, Clone)]
pub enum Tensor {
    /// In the host's memory.
    Host(candle_core::Tensor),
    /// To be computed on a device.
    Recorded(Arc<Node>),
}

use Tensor::{Host, Recorded};

impl From<candle_core::Tensor> for Tensor {
    fn from(tensor: candle_core::Tensor) -> Self {
        Host(tensor)
    }
}

impl From<Arc<Node>> for Tensor {
    fn from(node: Arc<Node>) -> Self {
        Recorded(node)
    }
}

impl From<&candle_core::Var> for Tensor {
    fn from(variable: &candle_core::Var) -> Self {
        Host(variable.as_tensor().clone())
    }
}

/// What makes tensors.
impl Tensor {
    /// # Errors
    /// When there are more or fewer `values` than `shape` says; so for the next.
    pub fn from_vec(values: Vec<f32>, shape: &[usize]) -> Result<Self> {
        candle_core::Tensor::from_vec(values, shape, &Device::Cpu).map(Host)
    }

    #[allow(missing_docs)]
    pub fn from_slice(values: &[f32], shape: &[usize]) -> Result<Self> {
        candle_core::Tensor::from_slice(values, shape, &Device::Cpu).map(Host)
    }

    /// A tensor of one dimension.
    ///
    /// # Errors
    /// When candle fails.
    pub fn vector(values: impl IntoIterator<Item = f32>) -> Result<Self> {
        let values: Vec<f32> = values.into_iter().collect();
        let count = values.len();
        Self::from_vec(values, &[count])
    }

    /// A scalar, of no dimension.
    pub fn scalar(value: f32) -> Self {
        Host(candle_core::Tensor::new(value, &Device::Cpu).expect("the CPU holds a value"))
    }
}

/// What is known of a tensor.
impl Tensor {
    #[allow(missing_docs)]
    pub fn dims(&self) -> &[usize] {
        match self {
            Host(tensor) => tensor.dims(),
            Recorded(node) => &node.shape,
        }
    }

    /// # Errors
    /// When there is no such axis.
    pub fn dim(&self, axis: usize) -> Result<usize> {
        match self.dims().get(axis) {
            Some(&size) => Ok(size),
            None => bail!("a tensor of {:?} has no axis {axis}", self.dims()),
        }
    }

    /// # Errors
    /// When it has another number of dimensions; so for the next ones.
    pub fn dims2(&self) -> Result<(usize, usize)> {
        self.sizes().map(|[a, b]| (a, b))
    }

    #[allow(missing_docs)]
    pub fn dims3(&self) -> Result<(usize, usize, usize)> {
        self.sizes().map(|[a, b, c]| (a, b, c))
    }

    #[allow(missing_docs)]
    pub fn dims4(&self) -> Result<(usize, usize, usize, usize)> {
        self.sizes().map(|[a, b, c, d]| (a, b, c, d))
    }

    fn sizes<const N: usize>(&self) -> Result<[usize; N]> {
        match self.dims().try_into() {
            Ok(sizes) => Ok(sizes),
            Err(_) => bail!("a tensor of {:?} has not {N} dimensions", self.dims()),
        }
    }

    /// Number of values.
    pub fn elem_count(&self) -> usize {
        self.dims().iter().product()
    }

    /// Candle's tensor, if its values are known.
    pub fn on_host(&self) -> Option<&candle_core::Tensor> {
        match self {
            Host(tensor) => Some(tensor),
            Recorded(_) => None,
        }
    }

    /// As part of a record.
    pub fn recorded(&self) -> Arc<Node> {
        match self {
            Host(tensor) => Operation::Host(tensor.clone()).of(tensor.dims()),
            Recorded(node) => Arc::clone(node),
        }
    }

    /// All values, in order.
    ///
    /// # Errors
    /// For one that is only recorded; so for the next.
    pub fn values(&self) -> Result<Vec<f32>> {
        match self {
            Host(tensor) => tensor.flatten_all()?.to_vec1(),
            Recorded(_) => bail!("the values are on the device"),
        }
    }

    /// The value of a scalar.
    pub fn value(&self) -> Result<f32> {
        match self {
            Host(tensor) => tensor.to_scalar(),
            Recorded(_) => bail!("the value is on the device"),
        }
    }
}
