//! What an ONNX network takes and gives: the element type and the batch of its input, and its
//! outputs as numbers of one image.

use anyhow::{bail, ensure, Context};
use half::f16;
use image::RgbImage;
use ort::session::Session;
use ort::value::{DynTensor, DynValue, Tensor, TensorElementType};

use super::description::{Layout, TeacherDescription};
use super::placement::Placement;

/// Most images in a fixed batch.
const MAX_BATCH: usize = 256;

/// The element type of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    Float32,
    Float16,
    Uint8,
}

/// A network's input, checked against its description.
#[derive(Debug, Clone, Copy)]
pub(super) struct NetworkInput {
    element: Element,
    /// Images that the network takes at once; 1 if the file leaves it open.
    pub batch: usize,
}

impl NetworkInput {
    /// The input that `d` names. What the file leaves open is as the description says.
    ///
    /// # Errors
    /// When it has another size, layout or element type than the description; says what to write.
    pub fn of(session: &Session, d: &TeacherDescription) -> anyhow::Result<Self> {
        let unknown = Self { element: Element::Float32, batch: 1 };
        let Some(input) = session.inputs().iter().find(|i| i.name() == d.input) else { return Ok(unknown) };
        let (Some(ty), Some(shape)) = (input.dtype().tensor_type(), input.dtype().tensor_shape()) else {
            return Ok(unknown);
        };
        let element = match ty {
            TensorElementType::Float32 => Element::Float32,
            TensorElementType::Float16 => Element::Float16,
            TensorElementType::Uint8 => Element::Uint8,
            other => bail!("its input {:?} is of {other}; export it with float32, float16 or uint8", d.input),
        };
        ensure!(
            element != Element::Uint8 || (d.mean == [0.0; 3] && d.std == [1.0; 3]),
            "its input {:?} is of uint8, which takes pixels as they are; write mean = [0.0, 0.0, 0.0] and std = [1.0, 1.0, \
             1.0] in the description",
            d.input
        );
        let (width, height) = (i64::from(d.size.width), i64::from(d.size.height));
        let expected = match d.layout {
            Layout::Nchw => [3, height, width],
            Layout::Nhwc => [height, width, 3],
        };
        let found: Vec<i64> = shape.iter().copied().collect();
        // A dynamic dimension is negative.
        let fits = found.len() == 4 && found[1..].iter().zip(expected).all(|(&has, wants)| has < 0 || has == wants);
        ensure!(
            fits,
            "its input {:?} is {found:?}, but size and layout of {} make it [1, {}, {}, {}]; {}",
            d.input,
            d.name,
            expected[0],
            expected[1],
            expected[2],
            remedy(&found)
        );
        let batch = usize::try_from(found[0]).unwrap_or(1).max(1);
        ensure!(batch <= MAX_BATCH, "its input {:?} is a batch of {batch}; export it with a batch of 1", d.input);
        Ok(Self { element, batch })
    }

    /// The input tensor of `image`, once for each place of the batch.
    ///
    /// # Errors
    /// When ONNX Runtime refuses it.
    pub fn tensor(self, image: &RgbImage, placement: &Placement, d: &TeacherDescription) -> anyhow::Result<DynTensor> {
        let (width, height) = (d.size.width as usize, d.size.height as usize);
        let shape = match d.layout {
            Layout::Nchw => [self.batch, 3, height, width],
            Layout::Nhwc => [self.batch, height, width, 3],
        };
        let values = placement.tensor(image, d).repeat(self.batch);
        Ok(match self.element {
            Element::Float32 => Tensor::from_array((shape, values))?.upcast(),
            Element::Float16 => {
                let values: Vec<f16> = values.into_iter().map(f16::from_f32).collect();
                Tensor::from_array((shape, values))?.upcast()
            }
            Element::Uint8 => {
                let values: Vec<u8> = values.into_iter().map(|v| v.round() as u8).collect();
                Tensor::from_array((shape, values))?.upcast()
            }
        })
    }

    /// Shape and values of an output, of the first image of the batch.
    ///
    /// # Errors
    /// When it is not a tensor of numbers, or has not one entry for each image of a fixed batch.
    pub fn output(self, name: &str, value: &DynValue) -> anyhow::Result<(Vec<usize>, Vec<f32>)> {
        let ty = value.dtype().tensor_type().with_context(|| format!("output {name:?} is not a tensor"))?;
        let (shape, values) = match ty {
            TensorElementType::Float32 => value.try_extract_tensor::<f32>().map(|(s, v)| (s, v.to_vec()))?,
            TensorElementType::Float16 => {
                value.try_extract_tensor::<f16>().map(|(s, v)| (s, v.iter().map(|v| v.to_f32()).collect()))?
            }
            TensorElementType::Float64 => {
                value.try_extract_tensor::<f64>().map(|(s, v)| (s, v.iter().map(|&v| v as f32).collect()))?
            }
            other => bail!("output {name:?} is of {other}; export it with float32 or float16"),
        };
        let mut shape: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
        if self.batch == 1 {
            return Ok((shape, values));
        }
        ensure!(
            shape.first() == Some(&self.batch),
            "output {name:?} is {shape:?}, which does not begin with the batch of {}; export the network with a batch of 1",
            self.batch
        );
        shape[0] = 1;
        let one = values.len() / self.batch;
        Ok((shape, values[..one].to_vec()))
    }
}

/// What to write in a description for an input of this shape.
fn remedy(shape: &[i64]) -> String {
    let (layout, height, width) = match *shape {
        [_, 3, height, width] => ("nchw", height, width),
        [_, height, width, 3] => ("nhwc", height, width),
        _ => return "teachers take one image of three channels: export the network so".into(),
    };
    match (height, width) {
        (h, w) if h > 0 && h == w => format!("write layout = \"{layout}\" and size = {w} in the description"),
        (h, w) if h > 0 && w > 0 => {
            format!("write layout = \"{layout}\" and size = [{w}, {h}] (width, height) in the description")
        }
        _ => format!("write layout = \"{layout}\" and a size that fits in the description"),
    }
}
