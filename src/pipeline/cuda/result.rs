//! What a frame brings back from the device, and where it lies.

use std::ops::Range;

use peregrine_core::{BoundingBox, ClassMask, Detection};
use peregrine_engine::cuda::arguments as arg;
use peregrine_engine::cuda::plain::Plain;

use super::working_memory::{Decoding, WorkingMemory};

/// The parts of the memory that results are written to.
pub(super) struct ResultLayout {
    /// Whether the device makes the detections, which then come first.
    has_detections: bool,
    /// The outputs that the host decodes, by their index: the scene head's and, where it does all,
    /// the detection head's.
    outputs: Vec<(usize, Range<usize>)>,
    /// Width and height of the mask; 0 without one.
    mask: (usize, usize),
    /// Its first byte. What precedes it are the detections and outputs.
    pub mask_at: usize,
    /// First byte of the count of saturated results, of 32 bits.
    pub saturated_at: usize,
    /// Of all.
    pub bytes: usize,
}

impl ResultLayout {
    pub fn new(memory: &WorkingMemory, mask: (usize, usize)) -> Self {
        let network = memory.model.network();
        let has_detections = memory.options.decoding == Decoding::OnDevice;
        let scenes = memory.architecture.scene_outputs();
        let first = if has_detections { scenes.start } else { 0 };
        let detections = size_of::<arg::ResultHeader>() + memory.options.max_detections * size_of::<arg::Found>();
        let mut end = if has_detections { detections.next_multiple_of(4) } else { 0 };
        let mut outputs = Vec::with_capacity(scenes.end - first);
        for index in first..scenes.end {
            let bytes = 4 * network.view(network.output(index)).shape.len();
            outputs.push((index, end..end + bytes));
            end += bytes;
        }
        let mask_at = end.next_multiple_of(16);
        let saturated_at = (mask_at + mask.0 * mask.1).next_multiple_of(4);
        Self { has_detections, outputs, mask, mask_at, saturated_at, bytes: saturated_at + 4 }
    }

    /// How many results were saturated in all frames before this one of `bytes`, modulo 2^32.
    pub fn saturated(&self, bytes: &[u8]) -> u32 {
        let word = bytes[self.saturated_at..].first_chunk().expect("a result is whole");
        u32::from_ne_bytes(*word)
    }

    /// Bytes of the detections, which come first; 0 where the host decodes them.
    pub fn detections(&self) -> usize {
        let behind = self.outputs.first().map_or(self.mask_at, |(_, range)| range.start);
        if self.has_detections {
            behind
        } else {
            0
        }
    }

    /// Index and first byte of each output that the host decodes.
    pub fn outputs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.outputs.iter().map(|(index, range)| (*index, range.start))
    }

    /// Output `index`, which the host decodes, planar, in `bytes` of a result.
    pub fn output<'a>(&self, bytes: &'a [u8], index: usize) -> &'a [f32] {
        let first = self.outputs[0].0;
        let bytes = &bytes[self.outputs[index - first].1.clone()];
        // SAFETY: floats that the graph has written, which begin on a multiple of four from memory
        // that is aligned far beyond it; every pattern of bits is one.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / 4) }
    }

    /// Replaces `detections`, where the device has made them, and `mask` by what `bytes` hold.
    pub fn read(&self, bytes: &[u8], detections: &mut Vec<Detection>, mask: &mut ClassMask) {
        if self.has_detections {
            let header = arg::ResultHeader::read(bytes);
            let found = bytes[size_of::<arg::ResultHeader>()..].chunks_exact(size_of::<arg::Found>());
            detections.clear();
            detections.extend(found.take(header.count as usize).map(|bytes| {
                let found = arg::Found::read(bytes);
                let [x_min, y_min, x_max, y_max] = found.bbox;
                let bbox = BoundingBox { x_min, y_min, x_max, y_max };
                Detection { class: found.label as usize, score: found.score, bbox }
            }));
        }
        (mask.width, mask.height) = self.mask;
        mask.classes.clear();
        mask.classes.extend_from_slice(&bytes[self.mask_at..][..self.mask.0 * self.mask.1]);
    }
}
