//! The weights file of a student with clustered weights: those of a layer take few values.
//!
//! A layer that is worth a codebook is `<layer>.codebook` (F16, at most 2^bits values),
//! `<layer>.codes` (U8: a number of `bits` bits for each weight, packed from the lowest bit of the
//! first byte on) and `<layer>.bias` (F16); another is `<layer>.weight` and `<layer>.bias`, as in a
//! student without clusters.

use std::collections::BTreeMap;

use peregrine_engine::{ConvWeights, Graph, Weights};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::tensors::{self, f16_bytes, to_f32};

/// Whether weights of shape `[out, in per group, kernel, kernel]` are clustered: there must be at
/// least 8 for each of the codebook's 2^`bits` values, and depthwise kernels, which have few
/// weights, lose the most accuracy.
pub fn is_worth_a_codebook(shape: &[usize; 4], bits: u8) -> bool {
    shape[1] > 1 && shape.iter().product::<usize>() >= 8 << bits
}

/// The file of `graph`.
///
/// # Panics
/// When a layer that is worth a codebook has more than 2^`bits` different weights.
pub fn serialize(graph: &Graph, weights: &Weights, bits: u8) -> Vec<u8> {
    let mut file = Vec::new();
    for (layer, _, shape) in graph.convs() {
        let conv = weights.of(&layer.name);
        let mut push = |part: &str, dtype, shape: &[usize], bytes: Vec<u8>| {
            file.push((format!("{}.{part}", layer.name), dtype, shape.to_vec(), bytes));
        };
        push("bias", Dtype::F16, &shape[..1], f16_bytes(&conv.bias));
        if !is_worth_a_codebook(&shape, bits) {
            push("weight", Dtype::F16, &shape, f16_bytes(&conv.weight));
            continue;
        }
        let mut codebook = conv.weight.clone();
        codebook.sort_by(f32::total_cmp);
        // By their bits, as they are searched below: 0 and -0 are two.
        codebook.dedup_by_key(|v| v.to_bits());
        assert!(codebook.len() <= 1 << bits, "{}: {} values do not fit {bits} bits", layer.name, codebook.len());
        let code = |v: &f32| codebook.binary_search_by(|c| c.total_cmp(v)).expect("the codebook has every weight");
        let codes = pack(conv.weight.iter().map(|v| code(v) as u8), conv.weight.len(), bits);
        push("codebook", Dtype::F16, &[codebook.len()], f16_bytes(&codebook));
        push("codes", Dtype::U8, &[codes.len()], codes);
    }
    tensors::serialize(&file)
}

/// Reads what [`serialize`] wrote for `graph`; shapes are left to be checked against it.
///
/// # Errors
/// A sentence on what is wrong with the file.
pub fn deserialize(bytes: &[u8], graph: &Graph, bits: u8) -> Result<Weights, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let mut tensors: BTreeMap<String, TensorView> = file.tensors().into_iter().collect();
    let mut weights = Weights::default();
    for (layer, _, shape) in graph.convs() {
        let mut take = |part: &str| {
            let name = format!("{}.{part}", layer.name);
            tensors.remove(&name).ok_or_else(|| format!("{name} is missing")).map(|tensor| (name, tensor))
        };
        let real = |(name, tensor): (String, TensorView)| {
            to_f32(&tensor).ok_or_else(|| format!("{name} is {:?}; F16 or F32 is expected", tensor.dtype()))
        };
        let bias = real(take("bias")?)?;
        let weight = if is_worth_a_codebook(&shape, bits) {
            let codebook = real(take("codebook")?)?;
            let (name, codes) = take("codes")?;
            let count: usize = shape.iter().product();
            if codes.dtype() != Dtype::U8 || codes.data().len() != (count * usize::from(bits)).div_ceil(8) {
                return Err(format!("{name} does not hold {count} codes of {bits} bits"));
            }
            let value = |code: u8| {
                let size = codebook.len();
                codebook.get(usize::from(code)).ok_or_else(|| format!("{name}: code {code} of a codebook of {size}"))
            };
            unpack(codes.data(), count, bits).map(|code| value(code).copied()).collect::<Result<_, _>>()?
        } else {
            real(take("weight")?)?
        };
        weights.0.insert(layer.name.clone(), ConvWeights { weight, bias });
    }
    match tensors.keys().next() {
        Some(unknown) => Err(format!("tensor {unknown:?} belongs to no layer of this network")),
        None => Ok(weights),
    }
}

fn pack(codes: impl Iterator<Item = u8>, count: usize, bits: u8) -> Vec<u8> {
    let bits = usize::from(bits);
    let mut packed = vec![0u8; (count * bits).div_ceil(8)];
    for (i, code) in codes.enumerate() {
        let (byte, shift) = (i * bits / 8, i * bits % 8);
        let wide = u16::from(code) << shift;
        packed[byte] |= wide as u8;
        if shift + bits > 8 {
            packed[byte + 1] |= (wide >> 8) as u8;
        }
    }
    packed
}

fn unpack(packed: &[u8], count: usize, bits: u8) -> impl Iterator<Item = u8> + '_ {
    let bits = usize::from(bits);
    (0..count).map(move |i| {
        let (byte, shift) = (i * bits / 8, i * bits % 8);
        let next = packed.get(byte + 1).copied().unwrap_or(0);
        let wide = u16::from(packed[byte]) | u16::from(next) << 8;
        (wide >> shift & ((1 << bits) - 1)) as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn codes_of_any_width_come_back(codes in prop::collection::vec(any::<u8>(), 0..50), bits in 1u8..=8) {
            let codes: Vec<u8> = codes.iter().map(|c| c & (0xffu16 >> (8 - bits)) as u8).collect();
            let packed = pack(codes.iter().copied(), codes.len(), bits);
            prop_assert_eq!(unpack(&packed, codes.len(), bits).collect::<Vec<_>>(), codes);
        }
    }
}
