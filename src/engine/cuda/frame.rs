//! A frame's way on the device: from the camera's bytes to boxes and mask, as one graph for each kind of image.
//!
//! bytes → pinned memory → device → letterbox → network → candidates → boxes, mask → pinned memory. The thresholds travel
//! in front of the image. A graph is made when the first image of its encoding and size comes; the last few are kept.

use std::sync::Arc;

use super::arguments::{self as arg, Plain};
use super::driver::{Instance, Memory, Place, Wait};
use super::kernels::{DETECT_THREADS, THREADS};
use super::launch::{dependencies, span, Launch, Node, Work};
use super::model::Model;
use super::CudaError;
use crate::decode::head::logit;
use crate::decode::{BoundingBox, ClassMask, Detection, MaskDecoder};
use crate::preprocess::{Encoding, ImageView, Letterbox, Normalisation};
use crate::student::Architecture;

/// Kinds of images whose graphs are kept.
const KEPT: usize = 4;

/// Bytes in front of an image: the [`arg::FrameHeader`] and room, so that rows begin aligned.
const HEADER: usize = 64;

/// What a frame is to be made into; fixed for the life of a [`FramePath`].
#[derive(Debug, Clone, PartialEq)]
pub struct FrameOptions {
    /// Most detections, 1 to 1000.
    pub max_detections: usize,
    /// Whether the network has its segmentation head.
    pub segmentation: bool,
    pub wait: Wait,
    /// Of the stream: 0 is normal, below 0 more urgent.
    pub priority: i32,
}

/// A student on a device, ready for images.
pub struct FramePath {
    /// The most recently used first. Dropped before the memory below.
    sessions: Vec<Session>,
    model: Arc<Model>,
    architecture: Architecture,
    options: FrameOptions,
    arena: Memory,
    /// Keys of candidates, and behind them their count.
    keys: Memory,
    places: usize,
}

/// All that depends on the encoding and size of the images.
struct Session {
    instance: Box<dyn Instance>,
    kind: Kind,
    upload: Memory,
    download: Memory,
    mask: (usize, usize),
    mask_at: usize,
    nodes: Vec<Node>,
    edges: Vec<Vec<usize>>,
    _device: Vec<Memory>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    encoding: Encoding,
    size: (usize, usize),
}

impl FramePath {
    /// For the model of a student's `architecture`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn new(model: &Arc<Model>, architecture: &Architecture, options: FrameOptions) -> Result<Self, CudaError> {
        let input = model.network.view(0).shape;
        let cells =
            |level: &crate::student::DetectionLevel| (input.width / level.stride) * (input.height / level.stride);
        let cells: usize = Architecture::detection_levels().iter().map(cells).sum();
        let places = cells * architecture.detection.classes.len();
        Ok(Self {
            sessions: Vec::with_capacity(KEPT + 1),
            arena: Memory::new(&model.driver, Place::Device, model.network.layout.arena)?,
            keys: Memory::new(&model.driver, Place::Device, 8 * places + 4)?,
            model: Arc::clone(model),
            architecture: architecture.clone(),
            options,
            places,
        })
    }

    /// Finds what is in `image`: replaces `detections` and, with segmentation, `mask`. Allocates only for the first image
    /// of a kind. `submitted` is called once the image's bytes have been handed over.
    ///
    /// # Errors
    /// When the device fails.
    pub fn process(
        &mut self,
        image: &ImageView,
        (score_threshold, nms_iou): (f32, f32),
        detections: &mut Vec<Detection>,
        mask: &mut ClassMask,
        submitted: impl FnOnce(),
    ) -> Result<(), CudaError> {
        let kind = Kind { encoding: image.encoding(), size: image.size() };
        self.select(kind)?;
        let session = &mut self.sessions[0];
        let header = arg::FrameHeader { logit: logit(score_threshold), iou: nms_iou };
        session.submit(image, header)?;
        submitted();
        session.instance.wait()?;
        session.read(detections, mask);
        Ok(())
    }

    /// Makes the graph for a kind of image beforehand, so that its first frame is no slower.
    ///
    /// # Errors
    /// When the device fails.
    pub fn prepare(&mut self, encoding: Encoding, size: (usize, usize)) -> Result<(), CudaError> {
        self.select(Kind { encoding, size })
    }

    /// The graph of the last image's kind, as a table for people; none before the first.
    pub fn explain(&self) -> Option<String> {
        self.sessions.first().map(|s| super::explain::table(&self.model, &s.nodes, &s.edges))
    }

    /// The graph of the last image's kind: its nodes, each with those that it waits for.
    pub fn graph(&self) -> Option<(&[Node], &[Vec<usize>])> {
        self.sessions.first().map(|s| (s.nodes.as_slice(), s.edges.as_slice()))
    }

    /// The least microseconds that each node took alone in `runs` runs, for the last image's kind.
    ///
    /// # Errors
    /// When the device fails.
    pub fn profile(&self, runs: usize) -> Result<Option<Vec<(String, f32)>>, CudaError> {
        let Some(session) = self.sessions.first() else { return Ok(None) };
        let times = self.model.driver.time(&session.nodes, runs)?;
        Ok(times.map(|times| session.nodes.iter().map(|n| n.name.clone()).zip(times).collect()))
    }

    /// Brings the session of `kind` to the front.
    fn select(&mut self, kind: Kind) -> Result<(), CudaError> {
        match self.sessions.iter().position(|s| s.kind == kind) {
            Some(at) => self.sessions[..=at].rotate_right(1),
            None => {
                // Room first: the device may have no memory for one more.
                self.sessions.truncate(KEPT - 1);
                let session = self.session(kind)?;
                self.sessions.insert(0, session);
            }
        }
        Ok(())
    }

    fn session(&self, kind: Kind) -> Result<Session, CudaError> {
        let driver = &self.model.driver;
        let input = self.model.network.view(0).shape;
        let letterbox = Letterbox::new(kind.size, (input.width, input.height));
        let cells = MaskDecoder::new(&letterbox);
        let (columns, rows) = cells.cells();
        let mask = if self.options.segmentation { (columns.len(), rows.len()) } else { (0, 0) };

        let found = size_of::<arg::ResultHeader>() + self.options.max_detections * size_of::<arg::Found>();
        let mask_at = found.next_multiple_of(16);
        let result_bytes = mask_at + mask.0 * mask.1;
        let image_bytes = HEADER + kind.encoding.row_bytes(kind.size.0) * kind.size.1;
        let upload = Memory::new(driver, Place::Upload, image_bytes)?;
        let download = Memory::new(driver, Place::Download, result_bytes)?;
        // Shared memory is read and written in place.
        let integrated = driver.device().integrated;
        let staged = |bytes| if integrated { Ok(None) } else { Memory::new(driver, Place::Device, bytes).map(Some) };
        let (device_image, device_result) = (staged(image_bytes)?, staged(result_bytes)?);

        let taps = letterbox.taps();
        let tables = [words(taps.columns), words(taps.rows), indices(columns), indices(rows)];
        let tables: Vec<_> = tables.iter().map(|t| Memory::holding(driver, t)).collect::<Result<_, _>>()?;

        let build = Builder {
            path: self,
            letterbox: &letterbox,
            image: device_image.as_ref().unwrap_or(&upload).device(),
            result: device_result.as_ref().unwrap_or(&download).device(),
            tables: [0, 1, 2, 3].map(|i| tables[i].device()),
            taps: [taps.per_column, taps.per_row],
        };
        let mut nodes = vec![];
        if device_image.is_some() {
            nodes.push(Node {
                name: "upload".into(),
                work: Work::Upload { host: upload.host(), device: build.image, bytes: image_bytes },
                reads: vec![],
                writes: vec![span(build.image, image_bytes)],
            });
        }
        nodes.push(build.letterbox(kind, image_bytes));
        let bases = self.model.bases(&self.arena);
        nodes.extend(self.model.network.nodes(&self.model.variants, &self.model.packed, bases));
        nodes.extend(build.detect(found));
        if self.options.segmentation {
            nodes.push(build.mask(mask, mask_at));
        }
        if device_result.is_some() {
            nodes.push(Node {
                name: "download".into(),
                work: Work::Download { device: build.result, host: download.host(), bytes: result_bytes },
                reads: vec![span(build.result, result_bytes)],
                writes: vec![],
            });
        }
        driver.prepare(&nodes)?;
        let edges = dependencies(&nodes);
        let instance = driver.instantiate(&nodes, &edges, self.options.wait, self.options.priority)?;
        let device = tables.into_iter().chain(device_image).chain(device_result).collect();
        Ok(Session { instance, kind, upload, download, mask, mask_at, nodes, edges, _device: device })
    }
}

/// What the nodes around the network have in common.
struct Builder<'a> {
    path: &'a FramePath,
    letterbox: &'a Letterbox,
    image: u64,
    result: u64,
    /// Column taps, row taps, columns and rows of the mask.
    tables: [u64; 4],
    /// Taps of a column and of a row.
    taps: [usize; 2],
}

impl Builder<'_> {
    fn letterbox(&self, kind: Kind, image_bytes: usize) -> Node {
        let network = &self.path.model.network;
        let bases = self.path.model.bases(&self.path.arena);
        let view = network.view(0);
        let input = &self.path.architecture.input;
        let (factor, offset) = Letterbox::affine(&Normalisation { mean: input.mean, std: input.std });
        let (yuv, bytes, at) = places(kind.encoding);
        let counter = self.counter();
        let bytes_out = network.layout.scales[0];
        let argument = arg::LetterboxImage {
            image: self.image + HEADER as u64,
            columns: self.tables[0],
            rows: self.tables[1],
            output: network.address(0, bases),
            candidates: counter,
            row_bytes: kind.encoding.row_bytes(kind.size.0) as i32,
            column_taps: self.taps[0] as i32,
            row_taps: self.taps[1] as i32,
            width: view.shape.width as i32,
            height: view.shape.height as i32,
            left: self.letterbox.pad().0 as i32,
            top: self.letterbox.pad().1 as i32,
            content_width: self.letterbox.content().0 as i32,
            content_height: self.letterbox.content().1 as i32,
            pitch: view.pitch as i32,
            yuv,
            bytes,
            at,
            factor,
            offset,
            scale: bytes_out.map_or(0.0, |scale| scale.scale),
            zero: bytes_out.map_or(0, |scale| i32::from(scale.zero_point)),
            unused: 0,
        };
        Node {
            name: "letterbox".into(),
            work: Work::Kernel(Launch::flat("letterbox", view.shape.pixels(), THREADS, &argument)),
            reads: vec![span(self.image, image_bytes)],
            writes: vec![network.span(0, bases), counter..counter + 4],
        }
    }

    fn counter(&self) -> u64 {
        self.path.keys.device() + 8 * self.path.places as u64
    }

    fn detect(&self, result_bytes: usize) -> [Node; 2] {
        let (path, network) = (self.path, &self.path.model.network);
        let bases = path.model.bases(&path.arena);
        let classes = path.architecture.detection.classes.len();
        let mut first = 0;
        let mut reads = vec![];
        let levels = Architecture::detection_levels().map(|level| {
            let (class, side) = (network.output(level.class), network.output(level.sides));
            reads.extend([network.span(class, bases), network.span(side, bases)]);
            let shape = network.view(class).shape;
            let level = arg::Level {
                classes: network.address(class, bases),
                sides: network.address(side, bases),
                class_pitch: network.view(class).pitch as i32,
                side_pitch: network.view(side).pitch as i32,
                width: shape.width as i32,
                cells: shape.pixels() as i32,
                stride: level.stride as i32,
                first: first as i32,
            };
            first += shape.pixels() * classes;
            level
        });
        let (scale, pad, source) = (self.letterbox.scale(), self.letterbox.pad(), self.letterbox.source());
        let keys = path.keys.device();
        let argument = arg::Decode {
            levels,
            header: self.image,
            keys,
            counter: self.counter(),
            result: self.result,
            classes: classes as i32,
            bins: path.architecture.detection.bins as i32,
            places: path.places as i32,
            most: path.options.max_detections as i32,
            scale: [scale.0, scale.1],
            pad: [pad.0 as f32, pad.1 as f32],
            source: [source.0 as f32, source.1 as f32],
        };
        let header = self.image..self.image + size_of::<arg::FrameHeader>() as u64;
        let all_keys = keys..self.counter() + 4;
        let candidates = Node {
            name: "candidates".into(),
            work: Work::Kernel(Launch::flat("candidates", path.places, THREADS, &argument)),
            reads: reads.iter().cloned().chain([header.clone()]).collect(),
            writes: vec![all_keys.clone()],
        };
        let detect = Node {
            name: "detect".into(),
            work: Work::Kernel(Launch::flat("detect", DETECT_THREADS as usize, DETECT_THREADS, &argument)),
            reads: reads.into_iter().chain([header, all_keys]).collect(),
            writes: vec![span(self.result, result_bytes)],
        };
        [candidates, detect]
    }

    fn mask(&self, (width, height): (usize, usize), at: usize) -> Node {
        let network = &self.path.model.network;
        let bases = self.path.model.bases(&self.path.arena);
        let logits = network.output(Architecture::SEGMENTATION_OUTPUT);
        let view = network.view(logits);
        let output = self.result + at as u64;
        let argument = arg::Mask {
            logits: network.address(logits, bases),
            columns: self.tables[2],
            rows: self.tables[3],
            output,
            pitch: view.pitch as i32,
            classes: view.shape.channels as i32,
            map_width: view.shape.width as i32,
            width: width as i32,
            height: height as i32,
            unused: 0,
        };
        Node {
            name: "mask".into(),
            work: Work::Kernel(Launch::flat("mask", width * height, THREADS, &argument)),
            reads: vec![network.span(logits, bases)],
            writes: vec![span(output, width * height)],
        }
    }
}

impl Session {
    fn submit(&mut self, image: &ImageView, header: arg::FrameHeader) -> Result<(), CudaError> {
        let row_bytes = image.encoding().row_bytes(image.width());
        let staging = self.upload.as_mut_slice();
        header.write(&mut staging[..size_of::<arg::FrameHeader>()]);
        // Row by row: what pads a row stays behind.
        for (y, row) in staging[HEADER..].chunks_exact_mut(row_bytes).enumerate() {
            row.copy_from_slice(image.row(y));
        }
        self.instance.launch()
    }

    fn read(&self, detections: &mut Vec<Detection>, mask: &mut ClassMask) {
        let bytes = self.download.as_slice();
        let header = arg::ResultHeader::read(bytes);
        let found = bytes[size_of::<arg::ResultHeader>()..].chunks_exact(size_of::<arg::Found>());
        detections.clear();
        detections.extend(found.take(header.count as usize).map(|bytes| {
            let found = arg::Found::read(bytes);
            let [x_min, y_min, x_max, y_max] = found.bbox;
            let bbox = BoundingBox { x_min, y_min, x_max, y_max };
            Detection { class: found.class as usize, score: found.score, bbox }
        }));
        (mask.width, mask.height) = self.mask;
        mask.classes.clear();
        mask.classes.extend_from_slice(&bytes[self.mask_at..][..self.mask.0 * self.mask.1]);
    }
}

/// Whether pairs of pixels share chroma, bytes of a pixel, and where R, G and B (or Y, U and V) are.
fn places(encoding: Encoding) -> (i32, i32, [i32; 3]) {
    match encoding {
        Encoding::Rgb8 => (0, 3, [0, 1, 2]),
        Encoding::Bgr8 => (0, 3, [2, 1, 0]),
        Encoding::Rgba8 => (0, 4, [0, 1, 2]),
        Encoding::Bgra8 => (0, 4, [2, 1, 0]),
        Encoding::Mono8 => (0, 1, [0, 0, 0]),
        Encoding::Uyvy => (1, 2, [1, 0, 2]),
        Encoding::Yuyv => (1, 2, [0, 1, 3]),
    }
}

fn words(pairs: impl Iterator<Item = [u32; 2]>) -> Vec<u8> {
    pairs.flatten().flat_map(u32::to_ne_bytes).collect()
}

fn indices(values: &[usize]) -> Vec<u8> {
    values.iter().flat_map(|&v| (v as u32).to_ne_bytes()).collect()
}
