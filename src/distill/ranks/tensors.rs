//! What the losses need of the other ranks' part of a batch. A loss of the whole batch is the sum of
//! the ranks' losses, each over its own images and divided by what the whole batch has
//! ([`Ranks::total`]); where examples are compared with each other, every rank takes all of them.

use super::Ranks;
use crate::tensor::{Result, Tensor};

impl Ranks {
    /// The share of the batch's images that each rank has.
    pub fn share(&self) -> f64 {
        1.0 / self.size() as f64
    }

    /// The sum of a tensor over the ranks; not to be differentiated.
    ///
    /// # Errors
    /// When candle fails.
    pub fn sum_tensor(&self, tensor: &Tensor) -> Result<Tensor> {
        if self.is_alone() {
            return Ok(tensor.clone());
        }
        let mut values: Vec<f64> = tensor.values()?.into_iter().map(f64::from).collect();
        self.sum(&mut values);
        Tensor::from_vec(values.into_iter().map(|v| v as f32).collect(), tensor.dims())
    }

    /// The `rows` of all ranks, in their order, of which each may have another number; `None` if none
    /// has any. To be differentiated in those of this rank. All but the number of rows must be equal.
    ///
    /// # Errors
    /// When candle fails.
    pub fn gather_rows(&self, rows: Option<&Tensor>, shape_of_row: &[usize]) -> Result<Option<Tensor>> {
        if self.is_alone() {
            return Ok(rows.cloned());
        }
        let own = rows.map_or_else(|| Ok(Vec::new()), Tensor::values)?;
        let length: usize = shape_of_row.iter().product();
        let mut parts = Vec::new();
        for (rank, values) in self.gather(&own).into_iter().enumerate().filter(|(_, values)| !values.is_empty()) {
            let shape: Vec<usize> = [values.len() / length].into_iter().chain(shape_of_row.iter().copied()).collect();
            parts.push(match rows.filter(|_| rank == self.rank()) {
                Some(own) => own.clone(),
                None => Tensor::from_vec(values, &shape)?,
            });
        }
        (!parts.is_empty()).then(|| Tensor::cat(&parts, 0)).transpose()
    }

    /// As [`gather_rows`](Self::gather_rows) for the images of a tensor, of which every rank has as
    /// many.
    ///
    /// # Errors
    /// When candle fails.
    pub fn gather_images(&self, images: &Tensor) -> Result<Tensor> {
        let all = self.gather_rows(Some(images), &images.dims()[1..])?;
        Ok(all.unwrap_or_else(|| images.clone()))
    }

    /// The flags of all ranks, in their order.
    pub fn gather_flags(&self, flags: &[bool]) -> Vec<bool> {
        if self.is_alone() {
            return flags.to_vec();
        }
        let flags: Vec<f32> = flags.iter().map(|&flag| f32::from(u8::from(flag))).collect();
        self.gather(&flags).concat().into_iter().map(|flag| flag > 0.0).collect()
    }

    /// A `loss` that every rank has computed of the examples of all: its value counts once in the sum
    /// over the ranks, its gradient everywhere, since each rank has that of its own examples.
    ///
    /// # Errors
    /// When candle fails.
    pub fn once(&self, loss: Tensor) -> Result<Tensor> {
        if self.is_first() {
            return Ok(loss);
        }
        let value = loss.detach();
        loss - value
    }
}
