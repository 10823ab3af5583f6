//! What is done on the device before and after the network.

use peregrine_engine::cuda::arguments as arg;
use peregrine_engine::cuda::kernels::{DETECT_THREADS, THREADS};
use peregrine_engine::cuda::launch::{span, Launch, Node, NodeWork};
use peregrine_student::architecture::DETECTION_STRIDES;
use peregrine_vision::preprocess::{Letterbox, Normalisation};

use super::image_form::image_form;
use super::result::ResultLayout;
use super::working_memory::{ImageKind, WorkingMemory, HEADER};

/// Builds the nodes of preprocessing and postprocessing, on either side of the network: what they
/// have in common.
pub(super) struct PrePostNodes<'a> {
    pub memory: &'a WorkingMemory,
    pub letterbox: &'a Letterbox,
    pub image: u64,
    pub result: u64,
    /// Column taps, row taps, columns and rows of the mask.
    pub tables: [u64; 4],
    /// Taps of a column and of a row.
    pub taps: [usize; 2],
}

impl PrePostNodes<'_> {
    /// The image to the network's input; and the count of what the frames before have saturated, to byte `saturated_at` of
    /// the result.
    pub fn letterbox(&self, kind: ImageKind, image_bytes: usize, saturated_at: usize) -> Node {
        let network = self.memory.model.network();
        let bases = self.memory.model.bases(&self.memory.arena);
        let view = network.view(0);
        let input = &self.memory.architecture.input;
        let (factor, offset) = Letterbox::affine(&Normalisation { mean: input.mean, std: input.std });
        let counter = self.counter();
        let so_far = self.result + saturated_at as u64;
        let bytes_out = network.layout.scales[0];
        let argument = arg::LetterboxImage {
            image: self.image + HEADER as u64,
            columns: self.tables[0],
            rows: self.tables[1],
            output: network.address(0, bases),
            candidates: counter,
            saturated: network.saturated(bases),
            saturated_so_far: so_far,
            column_taps: self.taps[0] as i32,
            row_taps: self.taps[1] as i32,
            width: view.shape.width as i32,
            height: view.shape.height as i32,
            left: self.letterbox.pad().0 as i32,
            top: self.letterbox.pad().1 as i32,
            content_width: self.letterbox.content().0 as i32,
            content_height: self.letterbox.content().1 as i32,
            pitch: view.pitch as i32,
            factor,
            offset,
            scale: bytes_out.map_or(0.0, |scale| scale.scale),
            zero: bytes_out.map_or(0, |scale| i32::from(scale.zero_point)),
            unused: 0,
            ..image_form(kind)
        };
        Node {
            name: "letterbox".into(),
            work: NodeWork::Kernel(Launch::flat("letterbox", view.shape.pixels(), THREADS, &argument)),
            reads: vec![span(self.image, image_bytes)],
            writes: vec![network.span(0, bases), counter..counter + 4, so_far..so_far + 4],
        }
    }

    fn counter(&self) -> u64 {
        self.memory.keys.device() + 8 * self.memory.places as u64
    }

    /// From logits to boxes. Without a detection head only the node that says that there are none.
    pub fn detect(&self, result_bytes: usize) -> Vec<Node> {
        let (memory, network) = (self.memory, self.memory.model.network());
        let bases = memory.model.bases(&memory.arena);
        let classes = memory.architecture.detection_classes().len();
        let mut first = 0;
        let mut reads = vec![];
        let mut levels = [arg::Level::default(); DETECTION_STRIDES.len()];
        for (into, level) in levels.iter_mut().zip(memory.architecture.detection_levels()) {
            let (class, distribution) = (network.output(level.class), network.output(level.box_distribution));
            reads.extend([network.span(class, bases), network.span(distribution, bases)]);
            let shape = network.view(class).shape;
            *into = arg::Level {
                classes: network.address(class, bases),
                box_distribution: network.address(distribution, bases),
                class_pitch: network.view(class).pitch as i32,
                distribution_pitch: network.view(distribution).pitch as i32,
                width: shape.width as i32,
                cells: shape.pixels() as i32,
                stride: level.stride as i32,
                first: first as i32,
            };
            first += shape.pixels() * classes;
        }
        let (scale, pad, source) = (self.letterbox.scale(), self.letterbox.pad(), self.letterbox.source());
        let keys = memory.keys.device();
        let argument = arg::Decode {
            levels,
            header: self.image,
            keys,
            counter: self.counter(),
            result: self.result,
            classes: classes as i32,
            bins: memory.architecture.bins() as i32,
            places: memory.places as i32,
            most: memory.options.max_detections as i32,
            scale: [scale.0, scale.1],
            pad: [pad.0 as f32, pad.1 as f32],
            source: [source.0 as f32, source.1 as f32],
        };
        let header = self.image..self.image + size_of::<arg::FrameHeader>() as u64;
        let all_keys = keys..self.counter() + 4;
        let candidates = (memory.places > 0).then(|| Node {
            name: "candidates".into(),
            work: NodeWork::Kernel(Launch::flat("candidates", memory.places, THREADS, &argument)),
            reads: reads.iter().cloned().chain([header.clone()]).collect(),
            writes: vec![all_keys.clone()],
        });
        let detect = Node {
            name: "detect".into(),
            work: NodeWork::Kernel(Launch::flat("detect", DETECT_THREADS as usize, DETECT_THREADS, &argument)),
            reads: reads.into_iter().chain([header, all_keys]).collect(),
            writes: vec![span(self.result, result_bytes)],
        };
        candidates.into_iter().chain([detect]).collect()
    }

    /// The outputs that the host decodes, as they are.
    pub fn unpack(&self, result: &ResultLayout) -> Vec<Node> {
        let network = self.memory.model.network();
        let bases = self.memory.model.bases(&self.memory.arena);
        let unpack = |(index, start)| network.unpack(network.output(index), self.result + start as u64, bases);
        result.outputs().map(unpack).collect()
    }

    /// From logits, the graph's output number `output`, to the most likely class of each cell.
    pub fn mask(&self, output: usize, (width, height): (usize, usize), at: usize) -> Node {
        let network = self.memory.model.network();
        let bases = self.memory.model.bases(&self.memory.arena);
        let logits = network.output(output);
        let view = network.view(logits);
        let result = self.result + at as u64;
        let argument = arg::Mask {
            logits: network.address(logits, bases),
            columns: self.tables[2],
            rows: self.tables[3],
            output: result,
            pitch: view.pitch as i32,
            classes: view.shape.channels as i32,
            map_width: view.shape.width as i32,
            width: width as i32,
            height: height as i32,
            unused: 0,
        };
        Node {
            name: "mask".into(),
            work: NodeWork::Kernel(Launch::flat("mask", width * height, THREADS, &argument)),
            reads: vec![network.span(logits, bases)],
            writes: vec![span(result, width * height)],
        }
    }
}
