//! The CUDA graphs of one camera, one per image format.

use std::sync::Arc;
use std::time::Duration;

use peregrine_core::{ClassMask, Detection, Encoding, ImageView};
use peregrine_engine::cuda::arguments as arg;
use peregrine_engine::cuda::driver::{DeviceMemory, Instance, MemoryKind};
use peregrine_engine::cuda::launch::{dependencies, span, Node, NodeWork};
use peregrine_engine::cuda::model::Model;
use peregrine_engine::cuda::plain::Plain;
use peregrine_engine::cuda::CudaError;
use peregrine_student::Architecture;
use peregrine_vision::decode::head::logit;
use peregrine_vision::decode::MaskDecoder;
use peregrine_vision::decode::NmsIou;
use peregrine_vision::preprocess::Letterbox;

use super::nodes::PrePostNodes;
use super::result::ResultLayout;
use super::staging;
use super::working_memory::{Decoding, FrameOptions, ImageKind, WorkingMemory, HEADER};

/// Kinds of images whose graphs are kept, for each camera. A camera has one; several publishers on its topic, or a camera
/// whose size changes, some more. Each takes memory for an image of its kind, and some microseconds to look it up.
const KEPT: usize = 16;

/// A student on a device, ready for images.
pub struct FrameGraphs {
    /// The most recently used first. Dropped before the memory below.
    sessions: Vec<Session>,
    memory: WorkingMemory,
    /// Images submitted so far; wraps.
    submissions: u64,
    /// As the last frame has told it.
    saturated: u32,
}

/// All that depends on the encoding and size of the images.
struct Session {
    instance: Box<dyn Instance>,
    /// A session whose launch has not ended stays the first.
    launch: Launch,
    kind: ImageKind,
    upload: DeviceMemory,
    download: DeviceMemory,
    result: ResultLayout,
    nodes: Vec<Node>,
    edges: Vec<Vec<usize>>,
    _device: Vec<DeviceMemory>,
}

/// What is known of a session's last launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Launch {
    /// It was seen to end, or there was none.
    Ended,
    /// It was not waited for yet.
    Submitted,
    /// It was waited for in vain, and uses its memory still.
    Overdue,
}

impl FrameGraphs {
    /// For the model of a student's `architecture`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn new(model: &Arc<Model>, architecture: &Architecture, options: FrameOptions) -> Result<Self, CudaError> {
        let memory = WorkingMemory::new(model, architecture, options)?;
        Ok(Self { sessions: Vec::with_capacity(KEPT + 1), memory, submissions: 0, saturated: 0 })
    }

    /// Processes `image`: [`submit`](Self::submit) and [`collect`](Self::collect).
    ///
    /// # Errors
    /// As theirs.
    pub fn process(
        &mut self,
        image: &ImageView,
        thresholds: (f32, NmsIou),
        detections: &mut Vec<Detection>,
        mask: &mut ClassMask,
    ) -> Result<(), CudaError> {
        self.submit(image, thresholds)?;
        self.collect(detections, mask)
    }

    /// Copies `image` and launches its graph, with the least score and the overlaps of `thresholds`; returns its number,
    /// by which [`submitted`](Self::submitted) knows it. Allocates only for the first image of a format.
    ///
    /// An image before that was not collected is waited for, and its result is lost.
    ///
    /// # Errors
    /// When the device fails; [`CudaError::Hangs`] when it has not ended an image before in time.
    pub fn submit(&mut self, image: &ImageView, (score_threshold, nms): (f32, NmsIou)) -> Result<u64, CudaError> {
        self.select(ImageKind { encoding: image.encoding(), size: image.size() })?;
        let header = arg::FrameHeader {
            logit: logit(score_threshold),
            iou: nms.same_class,
            cross_class_iou: nms.across_classes,
            unused: 0,
        };
        self.sessions[0].submit(image, header)?;
        self.submissions = self.submissions.wrapping_add(1);
        Ok(self.submissions)
    }

    /// The number of the image whose result is yet to be collected.
    pub fn submitted(&self) -> Option<u64> {
        self.sessions.first().filter(|first| first.launch == Launch::Submitted).map(|_| self.submissions)
    }

    /// Waits for the image submitted last, whose result replaces `detections` and, with segmentation, `mask`; `detections`
    /// stay as they are where the host decodes [`output`](Self::output)s.
    ///
    /// # Errors
    /// When the device fails; [`CudaError::Hangs`] when it has not ended the image in time.
    ///
    /// # Panics
    /// When none is [`submitted`](Self::submitted).
    pub fn collect(&mut self, detections: &mut Vec<Detection>, mask: &mut ClassMask) -> Result<(), CudaError> {
        assert!(self.submitted().is_some(), "no image was submitted");
        let session = &mut self.sessions[0];
        session.wait(self.memory.options.timeout)?;
        session.result.read(session.download.as_slice(), detections, mask);
        self.saturated = session.result.saturated(session.download.as_slice());
        Ok(())
    }

    /// The image that was submitted is not known by its number any more. It is waited for before the next one.
    pub(super) fn abandon(&mut self) {
        self.submissions = self.submissions.wrapping_add(1);
    }

    /// Whether an image of that format can be submitted without waiting for the device or allocating: its graph is there,
    /// and none is running.
    pub fn is_ready_for(&self, encoding: Encoding, size: (usize, usize)) -> bool {
        let kind = ImageKind { encoding, size };
        let idle = self.sessions.first().is_some_and(|first| first.launch == Launch::Ended);
        idle && self.sessions.iter().any(|session| session.kind == kind)
    }

    /// Output `index` for the last image that was collected, planar: of the scene head, or of the detection head where the
    /// host decodes it.
    ///
    /// # Panics
    /// Before the first image, and for another output.
    pub fn output(&self, index: usize) -> &[f32] {
        let session = &self.sessions[0];
        session.result.output(session.download.as_slice(), index)
    }

    /// Results of the network, in all frames before the last one, that lay beyond the range of half precision and became
    /// its end; 0 before the first image. Wraps.
    pub fn saturated(&self) -> u32 {
        self.saturated
    }

    /// Creates the graph for an image format ahead of its first frame.
    ///
    /// # Errors
    /// When the device fails.
    pub fn prepare(&mut self, encoding: Encoding, size: (usize, usize)) -> Result<(), CudaError> {
        self.select(ImageKind { encoding, size })
    }

    /// The graph of the last image's format as a human-readable table; `None` before the first image.
    pub fn explain(&self) -> Option<String> {
        self.sessions.first().map(|s| peregrine_engine::cuda::explain::table(&self.memory.model, &s.nodes, &s.edges))
    }

    /// The graph of the last image's kind: its nodes, each with those that it waits for.
    pub fn graph(&self) -> Option<(&[Node], &[Vec<usize>])> {
        self.sessions.first().map(|s| (s.nodes.as_slice(), s.edges.as_slice()))
    }

    /// Minimum microseconds of each node, timed alone in `runs` runs, for the last image's format.
    ///
    /// # Errors
    /// When the device fails.
    pub fn profile(&mut self, runs: usize) -> Result<Option<Vec<(String, f32)>>, CudaError> {
        self.wait_for_last()?;
        let Some(session) = self.sessions.first_mut() else { return Ok(None) };
        let mut times = Vec::with_capacity(session.nodes.len());
        for node in &session.nodes {
            // Repeated runs of the previous node changed the memory: restore what each node finds in a frame.
            session.instance.launch()?;
            session.instance.wait(Duration::MAX)?;
            let Some(time) = self.memory.model.driver().time(std::slice::from_ref(node), runs)? else {
                return Ok(None);
            };
            times.push((node.name.clone(), time.iter().sum()));
        }
        Ok(Some(times))
    }

    /// Runs the last image again: microseconds by the device's clock; `None` before the first image or without such a clock.
    ///
    /// # Errors
    /// When the device fails.
    pub fn device_time(&mut self) -> Result<Option<f32>, CudaError> {
        self.wait_for_last()?;
        self.sessions.first_mut().map_or(Ok(None), |session| session.instance.time())
    }

    /// Whether the device still works on an image that was waited for in vain.
    pub(super) fn hangs(&mut self) -> bool {
        self.sessions.first().is_some_and(|first| first.launch == Launch::Overdue) && self.is_working()
    }

    /// Whether the device still works on an image, which may take as long as any.
    pub(super) fn is_working(&mut self) -> bool {
        matches!(self.wait_for_last(), Err(CudaError::Hangs { .. }))
    }

    /// Waits for the image that was submitted and not collected, if there is one: nothing can be done while the device uses
    /// its memory. One that was waited for in vain is only looked at.
    fn wait_for_last(&mut self) -> Result<(), CudaError> {
        let timeout = self.memory.options.timeout;
        let Some(first) = self.sessions.first_mut() else { return Ok(()) };
        match first.launch {
            Launch::Ended => Ok(()),
            Launch::Submitted => first.wait(timeout),
            Launch::Overdue => first.wait(Duration::ZERO),
        }
    }

    /// Brings the session of `kind` to the front.
    fn select(&mut self, kind: ImageKind) -> Result<(), CudaError> {
        self.wait_for_last()?;
        match self.sessions.iter().position(|s| s.kind == kind) {
            Some(at) => self.sessions[..=at].rotate_right(1),
            None => {
                // Evict first: the device may not have memory for one more.
                self.sessions.truncate(KEPT - 1);
                let session = self.session(kind)?;
                self.sessions.insert(0, session);
            }
        }
        Ok(())
    }

    fn session(&self, kind: ImageKind) -> Result<Session, CudaError> {
        let driver = self.memory.model.driver();
        let input = self.memory.model.network().view(0).shape;
        let letterbox = Letterbox::new(kind.size, (input.width, input.height));
        let cells = MaskDecoder::new(&letterbox);
        let (columns, rows) = cells.cells();
        let mask = if self.memory.options.segmentation { (columns.len(), rows.len()) } else { (0, 0) };
        let result = ResultLayout::new(&self.memory, mask);
        let image_bytes = HEADER + kind.encoding.image_bytes(kind.size);
        let upload = DeviceMemory::new(driver, MemoryKind::Upload, image_bytes)?;
        let download = DeviceMemory::new(driver, MemoryKind::Download, result.bytes)?;
        // Shared memory is read in place. The result is written in place everywhere: it is small,
        // and a copy would be one more node to wait for.
        let device_image = if driver.device().integrated {
            None
        } else {
            Some(DeviceMemory::new(driver, MemoryKind::Device, image_bytes)?)
        };

        let taps = letterbox.taps();
        let tables = [words(taps.columns), words(taps.rows), indices(columns), indices(rows)];
        let tables: Vec<_> = tables.iter().map(|t| DeviceMemory::holding(driver, t)).collect::<Result<_, _>>()?;

        let build = PrePostNodes {
            memory: &self.memory,
            letterbox: &letterbox,
            image: device_image.as_ref().unwrap_or(&upload).device(),
            result: download.device(),
            tables: [0, 1, 2, 3].map(|i| tables[i].device()),
            taps: [taps.per_column, taps.per_row],
        };
        let mut nodes = vec![];
        if device_image.is_some() {
            nodes.push(Node {
                name: "upload".into(),
                work: NodeWork::Upload { host: upload.host(), device: build.image, bytes: image_bytes },
                reads: vec![],
                writes: vec![span(build.image, image_bytes)],
            });
        }
        nodes.push(build.letterbox(kind, image_bytes, result.saturated_at));
        nodes.extend(self.memory.model.nodes(&self.memory.arena));
        if self.memory.options.decoding == Decoding::OnDevice {
            nodes.extend(build.detect(result.detections()));
        }
        nodes.extend(build.unpack(&result));
        let segments = self.memory.architecture.segmentation_output().filter(|_| self.memory.options.segmentation);
        if let Some(output) = segments {
            nodes.push(build.mask(output, mask, result.mask_at));
        }
        driver.prepare(&nodes)?;
        let edges = dependencies(&nodes);
        let instance = driver.instantiate(&nodes, &edges, self.memory.options.wait, self.memory.options.priority)?;
        let device = tables.into_iter().chain(device_image).collect();
        Ok(Session { instance, launch: Launch::Ended, kind, upload, download, result, nodes, edges, _device: device })
    }
}

impl Session {
    fn submit(&mut self, image: &ImageView, header: arg::FrameHeader) -> Result<(), CudaError> {
        let (front, mut rows) = self.upload.as_mut_slice().split_at_mut(HEADER);
        header.write(front);
        match image.without_gaps() {
            Some(bytes) => staging::copy(rows, bytes),
            None => {
                for row in image.rows() {
                    let (front, rest) = rows.split_at_mut(row.len());
                    staging::copy(front, row);
                    rows = rest;
                }
            }
        }
        staging::finish();
        self.instance.launch()?;
        self.launch = Launch::Submitted;
        Ok(())
    }

    fn wait(&mut self, limit: Duration) -> Result<(), CudaError> {
        let ended = self.instance.wait(limit);
        let hangs = matches!(ended, Err(CudaError::Hangs { .. }));
        self.launch = if hangs { Launch::Overdue } else { Launch::Ended };
        ended
    }
}

fn words(pairs: impl Iterator<Item = [u32; 2]>) -> Vec<u8> {
    pairs.flatten().flat_map(u32::to_ne_bytes).collect()
}

fn indices(values: &[usize]) -> Vec<u8> {
    values.iter().flat_map(|&v| (v as u32).to_ne_bytes()).collect()
}
