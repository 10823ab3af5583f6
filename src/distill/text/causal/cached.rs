//! A network trained here as a [`LanguageModel`]: it keeps the keys and values of the texts that it
//! continues, so that each token of a reply costs one position.

use candle_core::{Device, Tensor};

use super::network::{Cache, CausalNetwork};
use super::LanguageModel;

/// A network with the keys and values of the texts that it continues.
pub struct CachedNetwork {
    network: CausalNetwork,
    cache: Cache,
}

impl CachedNetwork {
    pub fn new(network: CausalNetwork) -> Self {
        Self { network, cache: Cache::default() }
    }

    /// Logits after the last of the `tokens` of each text.
    fn next(&mut self, texts: usize, tokens: Vec<u32>) -> anyhow::Result<Vec<Vec<f32>>> {
        let each = tokens.len() / texts;
        let ids = Tensor::from_vec(tokens, (texts, each), &Device::Cpu)?;
        let logits = self.network.next(&ids, &mut self.cache)?;
        let logits = logits.reshape((texts, each, self.vocabulary()))?.narrow(1, each - 1, 1)?.squeeze(1)?;
        Ok(logits.to_vec2()?)
    }
}

impl LanguageModel for CachedNetwork {
    fn vocabulary(&self) -> usize {
        self.network.size.vocabulary
    }

    fn positions(&self) -> usize {
        self.network.size.positions
    }

    fn logits(&mut self, text: &[u32]) -> anyhow::Result<Vec<f32>> {
        let ids = Tensor::from_slice(text, (1, text.len()), &Device::Cpu)?;
        Ok(self.network.next(&ids, &mut Cache::default())?.flatten_all()?.to_vec1()?)
    }

    fn begin(&mut self, text: &[u32]) -> anyhow::Result<Vec<f32>> {
        self.cache = Cache::default();
        Ok(self.next(1, text.to_vec())?.remove(0))
    }

    fn advance(&mut self, texts: &[(usize, u32)]) -> anyhow::Result<Vec<Vec<f32>>> {
        let rows: Vec<u32> = texts.iter().map(|&(row, _)| row as u32).collect();
        // Greedy, the one text goes on.
        if !rows.iter().copied().eq(0..self.cache.texts() as u32) {
            self.cache = self.cache.select(&rows)?;
        }
        self.next(texts.len(), texts.iter().map(|&(_, token)| token).collect())
    }
}
