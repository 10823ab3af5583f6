//! The annotated image, drawn off the frame path and only for those who look.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use embedded_graphics::mono_font::{ascii::FONT_7X13_BOLD, MonoTextStyle};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::prelude::{DrawTarget, Drawable, OriginDimensions, Pixel, Point, Primitive, Size};
use embedded_graphics::primitives::{PrimitiveStyle, Rectangle};
use embedded_graphics::text::{Baseline, Text};
use jpeg_encoder::{ColorType, Encoder};
use peregrine_core::{BoundingBox, ClassMask, Detection, ImageView, LatestSlot};
use peregrine_pipeline::FrameResult;
use peregrine_track::Track;
use peregrine_vision::preprocess::{Letterbox, Normalisation};
use r2r::Publisher;

use crate::incoming::{Frame, Unpacker};
use crate::messages::{bytes, set_header, NativeHeader};

/// Colours that are told apart at a glance, also by most who do not see red and green: Okabe & Ito (2008).
pub const COLOURS: [[u8; 3]; 7] =
    [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167]];

const ROAD: [u8; 3] = [0, 200, 120];
const QUALITY: u8 = 85;
/// Pictures that are being filled, drawn, or wait for either.
const JOBS: usize = 3;
const LONGEST_SLEEP: Duration = Duration::from_millis(200);

/// A frame and what was found in it.
#[derive(Default)]
struct Job {
    frame: Option<Frame>,
    detections: Vec<Detection>,
    identities: Vec<u64>,
    tracks: Vec<Track>,
    mask: ClassMask,
}

/// The thread that draws, as the frame thread sees it. Ends with it.
pub struct PictureThread {
    shared: Arc<Shared>,
    /// Filled, and waiting for its frame.
    prepared: Option<Box<Job>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// The newest picture to draw; one that was not begun gives way.
    work: LatestSlot<Box<Job>>,
    free: ArrayQueue<Box<Job>>,
    stop: AtomicBool,
}

impl Shared {
    fn new() -> Arc<Self> {
        let free = ArrayQueue::new(JOBS);
        (0..JOBS).for_each(|_| drop(free.push(Box::default())));
        Arc::new(Self { work: LatestSlot::new(), free, stop: AtomicBool::new(false) })
    }
}

impl PictureThread {
    pub(super) fn start(
        painter: Painter,
        raw: Publisher<r2r::sensor_msgs::msg::Image>,
        compressed: Publisher<r2r::sensor_msgs::msg::CompressedImage>,
    ) -> std::io::Result<Self> {
        let shared = Shared::new();
        let mut studio = Studio { painter, unpacker: Unpacker::default(), raw, compressed };
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name("pictures".into()).spawn(move || {
            // The thread that starts it may have the priority of those that frames wait for.
            crate::realtime::be_patient();
            while !theirs.stop.load(Relaxed) {
                if let Some(mut job) = theirs.work.take_timeout(LONGEST_SLEEP) {
                    studio.publish(&job);
                    job.frame = None;
                    let _ = theirs.free.push(job);
                }
            }
        })?;
        Ok(Self { shared, prepared: None, thread: Some(thread) })
    }

    /// Copies what was found in the frame in hand. Allocates only for more than ever before; does nothing while all
    /// pictures are being drawn.
    pub(super) fn prepare(&mut self, result: &FrameResult) {
        let Some(mut job) = self.prepared.take().or_else(|| self.shared.free.pop()) else { return };
        job.detections.clone_from(&result.detections);
        job.identities.clone_from(&result.identities);
        job.tracks.clone_from(&result.tracks);
        (job.mask.width, job.mask.height) = (result.mask.width, result.mask.height);
        job.mask.classes.clone_from(&result.mask.classes);
        self.prepared = Some(job);
    }

    /// Gives the frame away to be drawn, if it was prepared.
    pub(super) fn draw(&mut self, frame: Frame) {
        let Some(mut job) = self.prepared.take() else { return };
        job.frame = Some(frame);
        if let Some(mut superseded) = self.shared.work.put(job) {
            superseded.frame = None;
            // Not kept as prepared: the next frame may be one in which nothing was looked for.
            let _ = self.shared.free.push(superseded);
        }
    }
}

impl Drop for PictureThread {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// What the thread works with.
struct Studio {
    painter: Painter,
    unpacker: Unpacker,
    raw: Publisher<r2r::sensor_msgs::msg::Image>,
    compressed: Publisher<r2r::sensor_msgs::msg::CompressedImage>,
}

impl Studio {
    /// Draws and publishes. What fails is not published: a picture is for people, who see that it stands still.
    fn publish(&mut self, job: &Job) {
        let Some(frame) = &job.frame else { return };
        let header = frame.message.header();
        let Ok(view) = self.unpacker.view(&frame.message) else { return };
        let picture = self.painter.paint(&view, job);
        let wanted = |count: r2r::Result<usize>| count.unwrap_or(0) > 0;
        if wanted(self.compressed.get_inter_process_subscription_count()) {
            let mut message = r2r::sensor_msgs::msg::CompressedImage { format: "jpeg".into(), ..Default::default() };
            message.header = rust_header(header);
            if picture.encode_jpeg(&mut message.data) {
                let _ = self.compressed.publish(&message);
            }
        }
        if wanted(self.raw.get_inter_process_subscription_count()) {
            let mut native = r2r::NativeMsg::<r2r::sensor_msgs::msg::Image>::new();
            set_header(&mut native.header, header);
            native.encoding.assign("rgb8");
            (native.width, native.height) = (picture.width as u32, picture.height as u32);
            native.step = 3 * native.width;
            native.data.update(&picture.pixels);
            let _ = self.raw.publish_native(&mut native);
        }
    }
}

fn rust_header(header: &NativeHeader) -> r2r::std_msgs::msg::Header {
    r2r::std_msgs::msg::Header {
        stamp: r2r::builtin_interfaces::msg::Time { sec: header.stamp.sec, nanosec: header.stamp.nanosec },
        frame_id: String::from_utf8_lossy(bytes(&header.frame_id)).into_owned(),
    }
}

/// Draws what was found into a copy of the image.
pub struct Painter {
    class_names: Vec<String>,
    road_class: Option<u8>,
    letterbox: Option<Letterbox>,
    planes: Vec<f32>,
    picture: Picture,
}

impl Painter {
    pub fn new(class_names: Vec<String>, road_class: Option<u8>) -> Self {
        Self { class_names, road_class, letterbox: None, planes: Vec::new(), picture: Picture::default() }
    }

    fn paint(&mut self, view: &ImageView, job: &Job) -> &Picture {
        self.copy(view);
        let picture = &mut self.picture;
        if let Some(road) = self.road_class {
            picture.tint(&job.mask, road, ROAD);
        }
        // Where tracks are that were not seen in this frame, thin and without a name.
        for track in job.tracks.iter().filter(|t| t.missed > 0) {
            picture.frame(&track.bbox, COLOURS[track.class % COLOURS.len()], 1);
        }
        let identities = job.identities.iter().copied().chain(std::iter::repeat(0));
        for (detection, identity) in job.detections.iter().zip(identities) {
            let colour = COLOURS[detection.class % COLOURS.len()];
            let name = self.class_names.get(detection.class).map_or("", |n| n.as_str());
            let identity = if identity == 0 { String::new() } else { format!(" {identity}") };
            picture.frame(&detection.bbox, colour, 2);
            picture.label(&detection.bbox, colour, &format!("{name}{identity} {:.2}", detection.score));
        }
        picture
    }

    /// The image's pixels as RGB. A letterbox of the image's own size is a copy that knows every encoding.
    fn copy(&mut self, view: &ImageView) {
        let size = view.size();
        if self.letterbox.as_ref().is_none_or(|l| l.source() != size) {
            self.letterbox = Some(Letterbox::new(size, size));
            // What one huge image took is given back with the next of another size.
            (self.planes, self.picture.pixels) = Default::default();
        }
        let Some(letterbox) = &self.letterbox else { return };
        let count = size.0 * size.1;
        self.planes.resize(3 * count, 0.0);
        letterbox.apply(view, &Normalisation { mean: [0.0; 3], std: [1.0; 3] }, &mut self.planes);
        (self.picture.width, self.picture.height) = size;
        self.picture.pixels.resize(3 * count, 0);
        let (red, rest) = self.planes.split_at(count);
        let (green, blue) = rest.split_at(count);
        for (pixel, ((r, g), b)) in self.picture.pixels.chunks_exact_mut(3).zip(red.iter().zip(green).zip(blue)) {
            pixel.copy_from_slice(&[*r, *g, *b].map(|v| (v + 0.5) as u8));
        }
    }
}

/// RGB, row by row.
#[derive(Default)]
struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Picture {
    /// A third of `colour` over the cells of `class`.
    fn tint(&mut self, mask: &ClassMask, class: u8, colour: [u8; 3]) {
        let size = (self.width, self.height);
        for (i, pixel) in self.pixels.chunks_exact_mut(3).enumerate() {
            if mask.at(i % size.0, i / size.0, size) == Some(class) {
                for (value, tint) in pixel.iter_mut().zip(colour) {
                    *value = ((2 * u16::from(*value) + u16::from(tint)) / 3) as u8;
                }
            }
        }
    }

    fn frame(&mut self, bbox: &BoundingBox, colour: [u8; 3], stroke: u32) {
        let (corner, size) = self.place(bbox);
        let _ = Rectangle::new(corner, size).into_styled(PrimitiveStyle::with_stroke(rgb(colour), stroke)).draw(self);
    }

    /// A text on a ground of `colour`, over the box or, at the image's upper edge, in it.
    fn label(&mut self, bbox: &BoundingBox, colour: [u8; 3], text: &str) {
        let (corner, _) = self.place(bbox);
        let size = Size::new(7 * text.len() as u32 + 2, 14);
        let corner = Point::new(corner.x, if corner.y >= 14 { corner.y - 14 } else { corner.y });
        let _ = Rectangle::new(corner, size).into_styled(PrimitiveStyle::with_fill(rgb(colour))).draw(self);
        let style = MonoTextStyle::new(&FONT_7X13_BOLD, Rgb888::BLACK);
        let _ = Text::with_baseline(text, corner + Point::new(1, 0), style, Baseline::Top).draw(self);
    }

    /// A box cut to the picture: a track's may reach far beyond it.
    fn place(&self, bbox: &BoundingBox) -> (Point, Size) {
        let (width, height) = (self.width as f32, self.height as f32);
        let (x, y) = (bbox.x_min.clamp(0.0, width), bbox.y_min.clamp(0.0, height));
        let size = Size::new(
            (bbox.x_max.clamp(0.0, width) - x).max(0.0) as u32,
            (bbox.y_max.clamp(0.0, height) - y).max(0.0) as u32,
        );
        (Point::new(x as i32, y as i32), size)
    }

    /// Appends the picture as JPEG; false where it is larger than the format allows.
    fn encode_jpeg(&self, to: &mut Vec<u8>) -> bool {
        let (Ok(width), Ok(height)) = (u16::try_from(self.width), u16::try_from(self.height)) else { return false };
        Encoder::new(to, QUALITY).encode(&self.pixels, width, height, ColorType::Rgb).is_ok()
    }
}

fn rgb([r, g, b]: [u8; 3]) -> Rgb888 {
    Rgb888::new(r, g, b)
}

impl OriginDimensions for Picture {
    fn size(&self) -> Size {
        Size::new(self.width as u32, self.height as u32)
    }
}

impl DrawTarget for Picture {
    type Color = Rgb888;
    type Error = std::convert::Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Self::Error> {
        for Pixel(at, colour) in pixels {
            let (Ok(x), Ok(y)) = (usize::try_from(at.x), usize::try_from(at.y)) else { continue };
            if x < self.width && y < self.height {
                let i = 3 * (y * self.width + x);
                self.pixels[i..i + 3].copy_from_slice(&[colour.r(), colour.g(), colour.b()]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn painted(encoding: &str, bytes: usize, job: &Job) -> Picture {
        let data = vec![100; 64 * 48 * bytes];
        let view = ImageView::new(encoding, 64, 48, 64 * bytes as u32, &data).unwrap();
        let mut painter = Painter::new(vec!["car".into()], Some(3));
        painter.paint(&view, job);
        painter.picture
    }

    fn at(picture: &Picture, x: usize, y: usize) -> [u8; 3] {
        let i = 3 * (y * picture.width + x);
        [picture.pixels[i], picture.pixels[i + 1], picture.pixels[i + 2]]
    }

    fn frame(sequence: u64) -> Frame {
        let message = r2r::NativeMsg::<r2r::sensor_msgs::msg::Image>::new();
        let arrival = crate::clock::Instant { ros: 0, monotonic: 0 };
        Frame { message: crate::incoming::ImageMessage::Raw(message), arrival, camera: 0, sequence }
    }

    #[test]
    fn a_frame_in_which_nothing_was_looked_for_is_not_drawn_with_what_was_found_before() {
        // Nobody draws, so that every picture is superseded.
        let mut pictures = PictureThread { shared: Shared::new(), prepared: None, thread: None };
        for sequence in 1..=10 {
            pictures.prepare(&FrameResult::default());
            pictures.draw(frame(sequence));
        }
        pictures.draw(frame(11));
        let drawn = pictures.shared.work.take().and_then(|job| job.frame).map(|frame| frame.sequence);
        assert_eq!(drawn, Some(10));
        assert_eq!(pictures.shared.free.len(), JOBS - 1, "no job is lost");
    }

    #[test]
    fn without_anything_found_the_picture_is_the_image() {
        for (encoding, bytes) in [("rgb8", 3), ("bgra8", 4), ("mono8", 1)] {
            let picture = painted(encoding, bytes, &Job::default());
            assert!(picture.pixels.iter().all(|&v| v == 100), "{encoding}");
        }
    }

    #[test]
    fn a_box_is_framed_named_and_the_road_is_tinted() {
        let job = Job {
            detections: vec![Detection { class: 0, score: 0.9, bbox: BoundingBox::new(10.0, 20.0, 60.0, 44.0) }],
            mask: ClassMask { width: 2, height: 1, classes: vec![0, 3] },
            ..Job::default()
        };
        let picture = painted("rgb8", 3, &job);
        assert_eq!(at(&picture, 10, 30), COLOURS[0]);
        assert_eq!(at(&picture, 10, 7), COLOURS[0], "the ground of the name");
        assert_eq!(at(&picture, 20, 35), [100; 3], "left, no road");
        assert_eq!(at(&picture, 40, 35), [66, 133, 106], "right, road");
    }

    #[test]
    fn a_box_that_reaches_beyond_the_picture_or_is_no_number_is_no_panic() {
        let huge = BoundingBox::new(-1e9, -1e9, 1e9, 1e9);
        let nan = BoundingBox::new(f32::NAN, 0.0, f32::NAN, 1.0);
        let of = |bbox| Detection { class: 5, score: 0.9, bbox };
        painted("rgb8", 3, &Job { detections: vec![of(huge), of(nan)], ..Job::default() });
    }
}
