//! The weights file of a student whose weights share values.
//!
//! A layer that it pays for is `<layer>.codebook` (F16, at most 2^bits values), `<layer>.codes` (U8: a number of `bits` bits
//! for each weight, packed from the lowest bit of the first byte on) and `<layer>.bias` (F16); another is `<layer>.weight` and
//! `<layer>.bias`, as in a student that shares nothing.

use std::collections::BTreeMap;

use half::f16;
use peregrine_engine::{ConvWeights, Graph, Weights};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::package::to_f32;

/// Whether weights of `[out, in per group, kernel, kernel]` are worth a codebook: there must be many for each of its
/// values, and depthwise kernels, of which there are few, suffer most.
pub fn pays(shape: &[usize; 4], bits: u8) -> bool {
    shape[1] > 1 && shape.iter().product::<usize>() >= 8 << bits
}

/// The file of `graph`.
///
/// # Panics
/// When a layer that it pays for has more than 2^`bits` different weights.
pub fn serialize(graph: &Graph, weights: &Weights, bits: u8) -> Vec<u8> {
    let half = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect() };
    let mut tensors = Vec::new();
    for (layer, _, shape) in graph.convs() {
        let conv = weights.of(&layer.name);
        let mut push = |part: &str, dtype, shape: &[usize], bytes: Vec<u8>| {
            tensors.push((format!("{}.{part}", layer.name), dtype, shape.to_vec(), bytes));
        };
        push("bias", Dtype::F16, &shape[..1], half(&conv.bias));
        if !pays(&shape, bits) {
            push("weight", Dtype::F16, &shape, half(&conv.weight));
            continue;
        }
        let mut codebook = conv.weight.clone();
        codebook.sort_by(f32::total_cmp);
        // By their bits, as they are searched below: 0 and -0 are two.
        codebook.dedup_by_key(|v| v.to_bits());
        assert!(codebook.len() <= 1 << bits, "{}: {} values do not fit {bits} bits", layer.name, codebook.len());
        let code = |v: &f32| codebook.binary_search_by(|c| c.total_cmp(v)).expect("the codebook has every weight");
        let codes = pack(conv.weight.iter().map(|v| code(v) as u8), conv.weight.len(), bits);
        push("codebook", Dtype::F16, &[codebook.len()], half(&codebook));
        push("codes", Dtype::U8, &[codes.len()], codes);
    }
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        (name, TensorView::new(*dtype, shape.clone(), data).expect("lengths follow from the shape"))
    });
    safetensors::serialize(views, None).expect("names are unique")
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
        let weight = if pays(&shape, bits) {
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
