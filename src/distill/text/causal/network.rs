//! The causal transformer: GPT-2's architecture (Radford et al. 2019), pre-norm with learnt
//! positions and tied embeddings, at any size.
//!
//! The weights have the names and the layout of transformers' `GPT2Model`, so that files of either
//! are files of the other.

use std::collections::{BTreeMap, HashMap};

use anyhow::{ensure, Context};
use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::ops;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use serde::{Deserialize, Serialize};

/// Of the layer normalisations, as in GPT-2.
const EPSILON: f32 = 1e-5;
/// Deviation of the initial weights, as in GPT-2.
const INITIAL: f32 = 0.02;
/// The logit of a position that must not be seen.
const UNSEEN: f32 = -1e9;

/// A network's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSize {
    /// Tokens that it knows.
    pub vocabulary: usize,
    /// Longest text, in tokens.
    pub positions: usize,
    /// Features of each position.
    pub width: usize,
    pub layers: usize,
    /// Attention heads; they divide the width.
    pub heads: usize,
}

impl NetworkSize {
    /// # Errors
    /// Names the size that is out of its range.
    pub fn check(&self) -> anyhow::Result<()> {
        let Self { vocabulary, positions, width, layers, heads } = *self;
        ensure!((1..=4096).contains(&width), "--width is {width}; it must be 1 to 4096");
        ensure!((1..=64).contains(&layers), "--layers is {layers}; it must be 1 to 64");
        ensure!(heads > 0 && width % heads == 0, "--heads is {heads}; it must divide --width, which is {width}");
        ensure!((1..=1 << 20).contains(&vocabulary) && (2..=65_536).contains(&positions), "invalid size {self:?}");
        Ok(())
    }

    /// Names and shapes of all weights.
    pub fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let Self { vocabulary, positions, width, layers, .. } = *self;
        let mut shapes =
            vec![("wte.weight".to_owned(), vec![vocabulary, width]), ("wpe.weight".to_owned(), vec![positions, width])];
        let mut layer = |name: String, weight: &[usize]| {
            shapes.push((format!("{name}.weight"), weight.to_vec()));
            shapes.push((format!("{name}.bias"), weight[weight.len() - 1..].to_vec()));
        };
        for i in 0..layers {
            layer(format!("h.{i}.ln_1"), &[width]);
            layer(format!("h.{i}.attn.c_attn"), &[width, 3 * width]);
            layer(format!("h.{i}.attn.c_proj"), &[width, width]);
            layer(format!("h.{i}.ln_2"), &[width]);
            layer(format!("h.{i}.mlp.c_fc"), &[width, 4 * width]);
            layer(format!("h.{i}.mlp.c_proj"), &[4 * width, width]);
        }
        layer("ln_f".to_owned(), &[width]);
        shapes
    }
}

/// Keys and values of the tokens so far, `[texts, heads, tokens, width / heads]`, for each layer.
#[derive(Debug, Clone, Default)]
pub struct Cache(Vec<[Tensor; 2]>);

impl Cache {
    /// Tokens so far.
    pub fn len(&self) -> usize {
        self.0.first().map_or(0, |[keys, _]| keys.dims()[2])
    }

    /// Texts whose tokens they are.
    pub fn texts(&self) -> usize {
        self.0.first().map_or(0, |[keys, _]| keys.dims()[0])
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The cache of the texts `rows`, which may repeat.
    pub fn select(&self, rows: &[u32]) -> Result<Self> {
        let rows = Tensor::from_slice(rows, rows.len(), &Device::Cpu)?;
        let select = |[keys, values]: &[Tensor; 2]| Ok([keys.index_select(&rows, 0)?, values.index_select(&rows, 0)?]);
        Ok(Self(self.0.iter().map(select).collect::<Result<_>>()?))
    }
}

/// The network's weights and its forward pass.
#[derive(Debug, Clone)]
pub struct CausalNetwork {
    pub size: NetworkSize,
    params: BTreeMap<String, Var>,
}

impl CausalNetwork {
    /// A network with random weights, as GPT-2 begins: those that add to the sum of the layers are
    /// smaller by the root of their number.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn random(size: NetworkSize, chance: &mut ChaCha8Rng) -> Result<Self> {
        let mut params = BTreeMap::new();
        for (name, shape) in size.shapes() {
            let deviation = match name.as_str() {
                name if name.ends_with("c_proj.weight") => INITIAL / (2.0 * size.layers as f32).sqrt(),
                _ => INITIAL,
            };
            let normal = Normal::new(0.0, deviation).expect("a deviation is finite");
            let len = shape.iter().product();
            let values: Vec<f32> = match name.as_str() {
                name if name.ends_with("bias") => vec![0.0; len],
                name if name.contains("ln_") => vec![1.0; len],
                _ => (0..len).map(|_| normal.sample(chance)).collect(),
            };
            params.insert(name, Var::from_slice(&values, shape, &Device::Cpu)?);
        }
        Ok(Self { size, params })
    }

    /// A network of these weights.
    ///
    /// # Errors
    /// Names the weight that is missing or has another shape.
    pub fn from_tensors(size: NetworkSize, tensors: &HashMap<String, Tensor>) -> anyhow::Result<Self> {
        let mut params = BTreeMap::new();
        for (name, shape) in size.shapes() {
            let tensor = tensors.get(&name).with_context(|| format!("has no {name}"))?;
            ensure!(tensor.dims() == shape, "{name} is {:?} instead of {shape:?}", tensor.dims());
            params.insert(name, Var::from_tensor(&tensor.to_dtype(DType::F32)?)?);
        }
        Ok(Self { size, params })
    }

    /// All weights by name, for the optimizer.
    pub fn params(&self) -> &BTreeMap<String, Var> {
        &self.params
    }

    /// Number of weights.
    pub fn parameters(&self) -> usize {
        self.params.values().map(|v| v.elem_count()).sum()
    }

    /// Features of each position of `ids` `[texts, tokens]`, as `[texts · tokens, width]`, for
    /// training. Texts may be padded at their ends with any token, since no position sees a later
    /// one.
    ///
    /// # Errors
    /// When a tensor operation fails, or a text is longer than the network's positions.
    pub fn features(&self, ids: &Tensor) -> Result<Tensor> {
        Pass { network: self, trains: true }.run(ids, &mut None)
    }

    /// Logits `[rows, vocabulary]` of the next token from `features` `[rows, width]`.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn logits(&self, features: &Tensor) -> Result<Tensor> {
        features.matmul(&self.params["wte.weight"].t()?)
    }

    /// Logits `[texts · tokens, vocabulary]` after each of the tokens `ids` `[texts, tokens]`,
    /// which follow those in `cache`; it then has them too. Cannot be differentiated.
    ///
    /// # Errors
    /// As [`features`](Self::features).
    pub fn next(&self, ids: &Tensor, cache: &mut Cache) -> Result<Tensor> {
        let features = Pass { network: self, trains: false }.run(ids, &mut Some(cache))?;
        self.logits(&features)
    }
}

/// One forward pass: differentiable, or by the faster operations that are not.
struct Pass<'a> {
    network: &'a CausalNetwork,
    trains: bool,
}

impl Pass<'_> {
    fn run(&self, ids: &Tensor, cache: &mut Option<&mut Cache>) -> Result<Tensor> {
        let (texts, tokens) = ids.dims2()?;
        let NetworkSize { width, layers, positions, .. } = self.network.size;
        let past = cache.as_ref().map_or(0, |cache| cache.len());
        if past + tokens > positions {
            candle_core::bail!("a text of {} tokens is longer than the network's {positions} positions", past + tokens);
        }
        let rows = self.param("wte.weight").index_select(&ids.flatten_all()?, 0)?.reshape((texts, tokens, width))?;
        let mut x = rows.broadcast_add(&self.param("wpe.weight").narrow(0, past, tokens)?)?;
        x = x.reshape((texts * tokens, width))?;
        let mask = unseen(past, tokens)?;
        for layer in 0..layers {
            let y = self.norm(&x, &format!("h.{layer}.ln_1"))?;
            x = (x + self.attend(&y, (texts, tokens), layer, &mask, cache)?)?;
            let y = self.norm(&x, &format!("h.{layer}.ln_2"))?;
            let y = self.linear(&y, &format!("h.{layer}.mlp.c_fc"))?.gelu()?;
            x = (x + self.linear(&y, &format!("h.{layer}.mlp.c_proj"))?)?;
        }
        self.norm(&x, "ln_f")
    }

    fn attend(
        &self,
        x: &Tensor,
        (texts, tokens): (usize, usize),
        layer: usize,
        mask: &Option<Tensor>,
        cache: &mut Option<&mut Cache>,
    ) -> Result<Tensor> {
        let NetworkSize { width, heads, .. } = self.network.size;
        let each = width / heads;
        let parts = self.linear(x, &format!("h.{layer}.attn.c_attn"))?.reshape((texts, tokens, 3, heads, each))?;
        let part = |i: usize| parts.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
        let (queries, mut keys, mut values) = (part(0)?, part(1)?, part(2)?);
        if let Some(cache) = cache {
            match cache.0.get_mut(layer) {
                Some([before, values_before]) => {
                    keys = Tensor::cat(&[&*before, &keys], 2)?;
                    values = Tensor::cat(&[&*values_before, &values], 2)?;
                    (*before, *values_before) = (keys.clone(), values.clone());
                }
                None => cache.0.push([keys.clone(), values.clone()]),
            }
        }
        let mut scores = (queries.matmul(&keys.t()?)? * (each as f64).powf(-0.5))?;
        if let Some(mask) = mask {
            scores = scores.broadcast_add(mask)?;
        }
        let weights = if self.trains { ops::softmax(&scores, 3)? } else { ops::softmax_last_dim(&scores)? };
        let seen = weights.matmul(&values)?.transpose(1, 2)?.reshape((texts * tokens, width))?;
        self.linear(&seen, &format!("h.{layer}.attn.c_proj"))
    }

    fn norm(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let [weight, bias] = ["weight", "bias"].map(|part| self.param(&format!("{name}.{part}")));
        if self.trains {
            ops::layer_norm_slow(x, weight, bias, EPSILON)
        } else {
            ops::layer_norm(x, weight, bias, EPSILON)
        }
    }

    fn linear(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let [weight, bias] = ["weight", "bias"].map(|part| self.param(&format!("{name}.{part}")));
        x.matmul(weight)?.broadcast_add(bias)
    }

    fn param(&self, name: &str) -> &Tensor {
        self.network.params[name].as_tensor()
    }
}

/// What is added to the scores `[…, tokens, past + tokens]` so that none sees a later one; nothing
/// for one token alone.
fn unseen(past: usize, tokens: usize) -> Result<Option<Tensor>> {
    if tokens == 1 {
        return Ok(None);
    }
    let all = past + tokens;
    let values: Vec<f32> = (0..tokens * all).map(|i| if i % all > past + i / all { UNSEEN } else { 0.0 }).collect();
    Ok(Some(Tensor::from_vec(values, (tokens, all), &Device::Cpu)?))
}

#[cfg(test)]
pub(in super::super) mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    pub const SIZE: NetworkSize = NetworkSize { vocabulary: 11, positions: 9, width: 8, layers: 2, heads: 2 };

    /// A network with weights large enough that every part of it shows.
    pub fn network(size: NetworkSize) -> CausalNetwork {
        let mut chance = ChaCha8Rng::seed_from_u64(1);
        let network = CausalNetwork::random(size, &mut chance).unwrap();
        for var in network.params.values() {
            let values: Vec<f32> = (0..var.elem_count()).map(|_| chance.random_range(-0.5f32..0.5)).collect();
            var.set(&Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap()).unwrap();
        }
        network
    }

    fn ids(texts: &[[u32; 5]]) -> Tensor {
        Tensor::from_vec(texts.concat(), (texts.len(), 5), &Device::Cpu).unwrap()
    }

    fn assert_close(a: &Tensor, b: &Tensor) {
        assert_eq!(a.dims(), b.dims());
        let difference = (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(difference < 1e-5, "{difference}");
    }

    #[test]
    fn logits_equal_those_of_an_independent_implementation() {
        #[derive(Deserialize)]
        struct Reference {
            size: NetworkSize,
            text: Vec<u32>,
            logits: Vec<Vec<f32>>,
        }
        let text = include_str!("../../../../tests/reference/gpt2.json");
        let Reference { size, text, logits } = serde_json::from_str(text).unwrap();
        let tensor = |(j, (name, shape)): (usize, (String, Vec<usize>))| {
            let more = if name.contains("ln_") && name.ends_with("weight") { 1.0 } else { 0.0 };
            let value = |i: usize| (0.4 * (1.3 * i as f64 + 0.9 * j as f64).sin() + more) as f32;
            let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
            (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
        };
        let tensors = size.shapes().into_iter().enumerate().map(tensor).collect();
        let network = CausalNetwork::from_tensors(size, &tensors).unwrap();
        let ids = Tensor::from_slice(&text, (1, text.len()), &Device::Cpu).unwrap();
        let expected = Tensor::new(logits, &Device::Cpu).unwrap();
        for ours in [network.features(&ids).and_then(|x| network.logits(&x)), network.next(&ids, &mut Cache::default())]
        {
            let difference = (ours.unwrap() - &expected).unwrap().abs().unwrap().max_all().unwrap();
            let difference = difference.to_scalar::<f32>().unwrap();
            assert!(difference < 1e-4, "{difference}");
        }
    }

    #[test]
    fn a_position_sees_no_later_token() {
        let network = network(SIZE);
        let logits = |texts: &[[u32; 5]]| network.logits(&network.features(&ids(texts)).unwrap()).unwrap();
        let both = logits(&[[1, 2, 3, 4, 5], [1, 2, 3, 9, 0]]);
        assert_close(&both.narrow(0, 0, 3).unwrap(), &both.narrow(0, 5, 3).unwrap());
        assert_close(&logits(&[[1, 2, 3, 9, 0]]), &both.narrow(0, 5, 5).unwrap());
        let change = (both.narrow(0, 3, 1).unwrap() - both.narrow(0, 8, 1).unwrap()).unwrap();
        assert!(change.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap() > 1e-3);
    }

    #[test]
    fn token_by_token_gives_the_logits_of_the_whole_text() {
        let network = network(SIZE);
        let texts = [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]];
        let whole = network.logits(&network.features(&ids(&texts)).unwrap()).unwrap();
        let whole = whole.reshape((2, 5, SIZE.vocabulary)).unwrap();
        let mut cache = Cache::default();
        let mut from = 0;
        for tokens in [2, 1, 1, 1] {
            let next = network.next(&ids(&texts).narrow(1, from, tokens).unwrap().contiguous().unwrap(), &mut cache);
            let next = next.unwrap().reshape((2, tokens, SIZE.vocabulary)).unwrap();
            assert_close(&next, &whole.narrow(1, from, tokens).unwrap());
            from += tokens;
            assert_eq!(cache.len(), from);
        }
        let swapped =
            network.next(&Tensor::new(&[[3u32], [3]], &Device::Cpu).unwrap(), &mut cache.select(&[1, 1]).unwrap());
        let swapped = swapped.unwrap();
        assert_close(&swapped.narrow(0, 0, 1).unwrap(), &swapped.narrow(0, 1, 1).unwrap());
    }

    #[test]
    fn gradients_reach_every_weight_and_agree_with_differences() {
        let network = network(SIZE);
        let texts = ids(&[[1, 2, 3, 4, 5]]);
        let loss = || {
            let logits = network.logits(&network.features(&texts).unwrap()).unwrap();
            candle_nn::loss::cross_entropy(&logits, &Tensor::new(&[2u32, 3, 4, 5, 0], &Device::Cpu).unwrap()).unwrap()
        };
        let gradients = loss().backward().unwrap();
        for (name, var) in network.params() {
            let gradient = gradients.get(var).unwrap_or_else(|| panic!("{name} has no gradient"));
            let gradient = gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let before = var.as_tensor().copy().unwrap();
            let values = before.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            // The steepest of them, which stands out most clearly from rounding.
            let at = (0..gradient.len()).max_by(|&a, &b| gradient[a].abs().total_cmp(&gradient[b].abs())).unwrap();
            let shifted = |by: f32| {
                let mut values = values.clone();
                values[at] += by;
                var.set(&Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap()).unwrap();
                f64::from(loss().to_scalar::<f32>().unwrap())
            };
            let difference = (shifted(5e-3) - shifted(-5e-3)) / 1e-2;
            var.set(&before).unwrap();
            let error = (difference - f64::from(gradient[at])).abs();
            assert!(error < 2e-3 + 0.02 * difference.abs(), "{name}: {difference} and {}", gradient[at]);
        }
    }

    #[test]
    fn a_text_longer_than_the_positions_is_refused() {
        let ids = Tensor::zeros((1, 10), DType::U32, &Device::Cpu).unwrap();
        let error = network(SIZE).features(&ids).unwrap_err().to_string();
        assert!(error.starts_with("a text of 10 tokens is longer than the network's 9 positions"), "{error}");
    }
}
