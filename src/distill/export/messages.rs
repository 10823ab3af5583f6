//! The subset of ONNX's protocol-buffer messages that a student needs, for writing and for reading
//! back.
//!
//! Field numbers are those of `onnx.proto3` (ONNX 1.19, IR version 12;
//! <https://onnx.ai/onnx/api/classes.html>); fields not listed are skipped when reading. A scalar
//! that ONNX's checker requires even if it is zero is an `Option`, which generated proto3 code
//! would not give: that, and the size of the whole schema, is why these are written by hand.

use prost::Message;

/// Element types of the tensors that this crate writes or reads.
pub const FLOAT: i32 = 1;
pub const UINT8: i32 = 2;
pub const INT8: i32 = 3;
pub const INT32: i32 = 6;
pub const INT64: i32 = 7;
pub const BOOL: i32 = 9;
pub const FLOAT16: i32 = 10;
pub const DOUBLE: i32 = 11;

/// Attribute types.
pub const ATTRIBUTE_FLOAT: i32 = 1;
pub const ATTRIBUTE_INT: i32 = 2;
pub const ATTRIBUTE_STRING: i32 = 3;
pub const ATTRIBUTE_INTS: i32 = 7;

#[derive(Clone, PartialEq, Message)]
pub struct Model {
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    #[prost(string, tag = "2")]
    pub producer_name: String,
    #[prost(string, tag = "3")]
    pub producer_version: String,
    #[prost(string, tag = "6")]
    pub doc_string: String,
    #[prost(message, optional, tag = "7")]
    pub graph: Option<GraphBody>,
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSet>,
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
pub struct OperatorSet {
    /// Empty for ONNX's own operators, but required.
    #[prost(string, optional, tag = "1")]
    pub domain: Option<String>,
    #[prost(int64, tag = "2")]
    pub version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct GraphBody {
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<Node>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<Value>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Node {
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<Attribute>,
    /// Empty for ONNX's own operators.
    #[prost(string, tag = "7")]
    pub domain: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Attribute {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(float, optional, tag = "2")]
    pub f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub s: Option<Vec<u8>>,
    #[prost(message, optional, tag = "5")]
    pub t: Option<Tensor>,
    #[prost(float, repeated, tag = "7")]
    pub floats: Vec<f32>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    pub kind: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Tensor {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    /// Also of the smaller integers, and the bits of half precision.
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub name: String,
    /// Little-endian.
    #[prost(bytes = "vec", optional, tag = "9")]
    pub raw_data: Option<Vec<u8>>,
    #[prost(double, repeated, tag = "10")]
    pub double_data: Vec<f64>,
    /// Where the values are when they are in a file of their own.
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Value {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<Type>,
    #[prost(string, tag = "3")]
    pub doc_string: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Type {
    #[prost(message, optional, tag = "1")]
    pub tensor_type: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TensorType {
    #[prost(int32, tag = "1")]
    pub elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<TensorShape>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TensorShape {
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dimension>,
}

/// Exactly one of the two is set.
#[derive(Clone, PartialEq, Message)]
pub struct Dimension {
    #[prost(int64, optional, tag = "1")]
    pub dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub dim_param: Option<String>,
}

impl Tensor {
    /// An f32 tensor.
    pub fn f32(name: impl Into<String>, dims: &[usize], values: &[f32]) -> Self {
        Self {
            dims: dims.iter().map(|&d| d as i64).collect(),
            data_type: FLOAT,
            name: name.into(),
            raw_data: Some(values.iter().flat_map(|v| v.to_le_bytes()).collect()),
            ..Self::default()
        }
    }

    /// A one-dimensional i64 tensor.
    pub fn i64(name: impl Into<String>, values: &[i64]) -> Self {
        Self {
            dims: vec![values.len() as i64],
            data_type: INT64,
            name: name.into(),
            raw_data: Some(values.iter().flat_map(|v| v.to_le_bytes()).collect()),
            ..Self::default()
        }
    }

    /// The values of an f32 tensor stored in the file itself; `None` for any other.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        let len: i64 = self.dims.iter().product();
        let values = match &self.raw_data {
            _ if self.data_type != FLOAT => return None,
            Some(raw) => raw.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            None => self.float_data.clone(),
        };
        (values.len() as i64 == len).then_some(values)
    }
}

impl Node {
    pub fn new(op: &str, inputs: &[&str], output: &str) -> Self {
        Self {
            input: inputs.iter().map(|s| s.to_string()).collect(),
            output: vec![output.to_owned()],
            name: output.to_owned(),
            op_type: op.to_owned(),
            ..Self::default()
        }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn int(mut self, name: &str, value: i64) -> Self {
        self.attribute.push(Attribute {
            name: name.into(),
            i: Some(value),
            kind: ATTRIBUTE_INT,
            ..Attribute::default()
        });
        self
    }

    /// Adds an attribute.
    #[must_use]
    pub fn float(mut self, name: &str, value: f32) -> Self {
        self.attribute.push(Attribute {
            name: name.into(),
            f: Some(value),
            kind: ATTRIBUTE_FLOAT,
            ..Attribute::default()
        });
        self
    }

    /// Adds an attribute.
    #[must_use]
    pub fn ints(mut self, name: &str, values: &[usize]) -> Self {
        let ints = values.iter().map(|&v| v as i64).collect();
        self.attribute.push(Attribute { name: name.into(), ints, kind: ATTRIBUTE_INTS, ..Attribute::default() });
        self
    }

    /// Adds an attribute.
    #[must_use]
    pub fn text(mut self, name: &str, value: &str) -> Self {
        let s = Some(value.as_bytes().to_vec());
        self.attribute.push(Attribute { name: name.into(), s, kind: ATTRIBUTE_STRING, ..Attribute::default() });
        self
    }
}

impl Value {
    /// An f32 tensor; a dimension of `None` is a dynamic batch size.
    pub fn f32(name: &str, dims: &[Option<usize>], doc: &str) -> Self {
        let dimension = |d: &Option<usize>| match d {
            Some(n) => Dimension { dim_value: Some(*n as i64), dim_param: None },
            None => Dimension { dim_value: None, dim_param: Some("batch".into()) },
        };
        let shape = Some(TensorShape { dim: dims.iter().map(dimension).collect() });
        let r#type = Some(Type { tensor_type: Some(TensorType { elem_type: FLOAT, shape }) });
        Self { name: name.into(), r#type, doc_string: doc.into() }
    }
}
