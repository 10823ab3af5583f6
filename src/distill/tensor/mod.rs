//! The tensors that losses are written with.
//!
//! On the CPU they are candle's: each operation is computed at once, and candle's autograd
//! differentiates the loss. In a training on a GPU the same lines only record what is to be computed
//! ([`record`]), with the gradients ([`gradient`]), and the record becomes part of the step's graph on
//! the device. So a loss is written once, and reads no value: a shape must not depend on one.
//!
//! Names are candle's. Values are in single precision.

pub mod gradient;
mod operators;
pub mod record;

use std::sync::Arc;

pub use candle_core::Result;
use candle_core::{bail, Device};

use record::{Join, Map, Node, Operation};

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
    pub fn from_iter(values: impl IntoIterator<Item = f32>) -> Result<Self> {
        let values: Vec<f32> = values.into_iter().collect();
        let count = values.len();
        Self::from_vec(values, &[count])
    }

    /// A scalar, of no dimension.
    pub fn scalar(value: f32) -> Self {
        Host(candle_core::Tensor::new(value, &Device::Cpu).expect("the CPU holds a value"))
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

/// Value by value.
macro_rules! maps {
    ($($(#[$doc:meta])* $name:ident $candle:ident $map:ident;)*) => {
        impl Tensor {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// When candle fails.
                pub fn $name(&self) -> Result<Self> {
                    match self {
                        Host(tensor) => tensor.$candle().map(Host),
                        Recorded(node) => Ok(Recorded(record::map(node, Map::$map))),
                    }
                }
            )*
        }
    };
}

maps! {
    /// eˣ.
    exp exp Exp;
    /// The natural logarithm.
    log log Log;
    /// √x.
    sqrt sqrt Sqrt;
    /// x².
    sqr sqr Square;
    /// |x|.
    abs abs Abs;
    /// −x.
    neg neg Negate;
    /// 1/x.
    recip recip Reciprocal;
    /// max(x, 0).
    relu relu Relu;
}

/// Value by value, with a constant.
impl Tensor {
    /// 1 / (1 + e⁻ˣ).
    ///
    /// # Errors
    /// When candle fails; so for the next ones.
    pub fn sigmoid(&self) -> Result<Self> {
        match self {
            Host(tensor) => candle_nn::ops::sigmoid(tensor).map(Host),
            Recorded(node) => Ok(Recorded(record::map(node, Map::Sigmoid))),
        }
    }

    /// x · factor + offset.
    pub fn affine(&self, factor: f64, offset: f64) -> Result<Self> {
        match self {
            Host(tensor) => tensor.affine(factor, offset).map(Host),
            Recorded(node) => Ok(Recorded(record::map(node, Map::Affine(factor, offset)))),
        }
    }

    #[allow(missing_docs)]
    pub fn powf(&self, exponent: f64) -> Result<Self> {
        match self {
            Host(tensor) => tensor.powf(exponent).map(Host),
            Recorded(node) => Ok(Recorded(record::map(node, Map::Power(exponent)))),
        }
    }

    /// max(x, least).
    pub fn at_least(&self, least: f64) -> Result<Self> {
        match self {
            Host(tensor) => tensor.maximum(least).map(Host),
            Recorded(node) => Ok(Recorded(record::map(node, Map::AtLeast(least)))),
        }
    }

    /// min(x, most).
    pub fn at_most(&self, most: f64) -> Result<Self> {
        match self {
            Host(tensor) => tensor.minimum(most).map(Host),
            Recorded(node) => Ok(Recorded(record::map(node, Map::AtMost(most)))),
        }
    }

    /// 1 where x is above `bound`, else 0; not differentiated.
    pub fn above(&self, bound: f64) -> Result<Self> {
        match self {
            Host(tensor) => tensor.gt(bound)?.to_dtype(candle_core::DType::F32).map(Host),
            Recorded(node) => Ok(Recorded(record::map(node, Map::Above(bound)))),
        }
    }

    /// The same values, through which nothing is differentiated.
    pub fn detach(&self) -> Self {
        match self {
            Host(tensor) => Host(tensor.detach()),
            Recorded(node) => Recorded(Node::new(Operation::Detach, node.shape.clone(), vec![Arc::clone(node)])),
        }
    }
}

/// Two tensors, value by value; `broadcast_…`: a size of 1 or one that is missing in front stands for
/// any.
macro_rules! joins {
    ($($name:ident $join:ident;)*) => {
        impl Tensor {
            $(
                #[allow(missing_docs)]
                ///
                /// # Errors
                /// When the shapes do not agree.
                pub fn $name(&self, other: &Self) -> Result<Self> {
                    match (self, other) {
                        (Host(a), Host(b)) => a.$name(b).map(Host),
                        _ => record::join(&self.recorded(), &other.recorded(), Join::$join).map(Recorded),
                    }
                }
            )*
        }
    };
}

joins! {
    broadcast_add Add;
    broadcast_sub Subtract;
    broadcast_mul Multiply;
    broadcast_div Divide;
    minimum Minimum;
    maximum Maximum;
}

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
}
