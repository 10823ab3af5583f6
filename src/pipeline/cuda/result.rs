//! What a frame brings back from the device, and where it lies.

use std::ops::Range;

use peregrine_core::{BoundingBox, ClassMask, Detection};
use peregrine_engine::cuda::arguments::{self as arg, Plain};

use super::working_memory::{Decoding, WorkingMemory};

/// The parts of the memory that results are written to.
pub(super) struct ResultLayout {
    /// Of each output of the detection head, in bytes; none where the device decodes.
    outputs: Vec<Range<usize>>,
    /// Width and height of the mask; 0 without one.
    mask: (usize, usize),
    /// Its first byte. What precedes it are the outputs, or the detections.
    pub mask_at: usize,
    /// Of all.
    pub bytes: usize,
}

impl ResultLayout {
    pub fn new(memory: &WorkingMemory, mask: (usize, usize)) -> Self {
        let mut outputs = vec![];
        let mut end = 0;
        match memory.options.decoding {
            Decoding::OnDevice => {
                end = size_of::<arg::ResultHeader>() + memory.options.max_detections * size_of::<arg::Found>();
            }
            Decoding::OnHost => {
                let network = memory.model.network();
                let all = network.layout.plan.outputs.len();
                for index in 0..memory.architecture.segmentation_output().unwrap_or(all) {
                    let bytes = 4 * network.view(network.output(index)).shape.len();
                    outputs.push(end..end + bytes);
                    end += bytes;
                }
            }
        }
        let mask_at = end.next_multiple_of(16);
        Self { outputs, mask, mask_at, bytes: mask_at + mask.0 * mask.1 }
    }

    /// The first byte of each output of the detection head.
    pub fn output_starts(&self) -> impl Iterator<Item = usize> + '_ {
        self.outputs.iter().map(|range| range.start)
    }

    /// Output `index` of the detection head, planar, in `bytes` of a result.
    pub fn output<'a>(&self, bytes: &'a [u8], index: usize) -> &'a [f32] {
        let bytes = &bytes[self.outputs[index].clone()];
        // SAFETY: floats that the graph has written, which begin on a multiple of four from memory
        // that is aligned far beyond it; every pattern of bits is one.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / 4) }
    }

    /// Replaces `detections`, where the device has made them, and `mask` by what `bytes` hold.
    pub fn read(&self, bytes: &[u8], detections: &mut Vec<Detection>, mask: &mut ClassMask) {
        if self.outputs.is_empty() {
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
