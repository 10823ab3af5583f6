//! Outgoing messages that are made once and filled again for each frame.
//!
//! They are the C structures that ROS itself publishes. r2r's Rust types would be converted, string
//! by string, into a new C structure for every frame; these are written in place.

use peregrine_core::{ClassMask, Detection, FrameCounts};
use r2r::{NativeMsg, WrappedTypesupport};
use r2r_rcl::rosidl_runtime_c__String;

use super::clock::Nanoseconds;

/// `std_msgs/Header` as a C structure.
pub type NativeHeader = <r2r::std_msgs::msg::Header as WrappedTypesupport>::CStruct;
type NativeTime = <r2r::builtin_interfaces::msg::Time as WrappedTypesupport>::CStruct;
type NativeDetection = <r2r::vision_msgs::msg::Detection2D as WrappedTypesupport>::CStruct;

/// The header's stamp in nanoseconds since the epoch; 0 if the camera has not set it.
pub fn stamp(header: &NativeHeader) -> Nanoseconds {
    i64::from(header.stamp.sec) * 1_000_000_000 + i64::from(header.stamp.nanosec)
}

fn set_time(time: &mut NativeTime, at: Nanoseconds) {
    time.sec = i32::try_from(at.div_euclid(1_000_000_000)).unwrap_or(i32::MAX);
    time.nanosec = at.rem_euclid(1_000_000_000) as u32;
}

pub fn set_header(header: &mut NativeHeader, source: &NativeHeader) {
    header.stamp.sec = source.stamp.sec;
    header.stamp.nanosec = source.stamp.nanosec;
    set_string(&mut header.frame_id, bytes(&source.frame_id));
}

/// The text of a ROS string, without its closing zero.
pub fn bytes(string: &rosidl_runtime_c__String) -> &[u8] {
    if string.data.is_null() {
        return &[];
    }
    // SAFETY: ROS keeps `size` initialised bytes at `data` for as long as the string lives.
    unsafe { std::slice::from_raw_parts(string.data.cast(), string.size) }
}

/// Overwrites a ROS string. Allocates only for a text that is longer than every earlier one.
pub fn set_string(string: &mut rosidl_runtime_c__String, text: &[u8]) {
    if string.data.is_null() || string.capacity <= text.len() {
        // SAFETY: `text` is valid for its length, which is all that is read; ROS copies it. On
        // failure it leaves the old text, which is a valid string.
        unsafe { r2r_rcl::rosidl_runtime_c__String__assignn(string, text.as_ptr().cast(), text.len()) };
        return;
    }
    // SAFETY: `data` has room for `capacity` bytes, which is more than the text and its closing
    // zero need.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), string.data.cast(), text.len());
        string.data.add(text.len()).write(0);
    }
    string.size = text.len();
}

/// Writes an identity in decimal, and nothing for 0.
pub fn set_identity(string: &mut rosidl_runtime_c__String, identity: u64) {
    decimal(identity, |digits| set_string(string, digits));
}

/// The decimal digits of a number, without allocation; none for 0.
pub fn decimal(number: u64, mut take: impl FnMut(&[u8])) {
    let mut digits = [0; 20];
    let mut begin = digits.len();
    let mut rest = number;
    while rest > 0 {
        begin -= 1;
        digits[begin] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    take(&digits[begin..]);
}

/// A `vision_msgs/Detection2DArray` with room for a fixed number of detections.
pub struct DetectionsMessage {
    pub native: NativeMsg<r2r::vision_msgs::msg::Detection2DArray>,
    class_names: Vec<String>,
}

// SAFETY: a message owns its memory, which C allocated and any thread may use and free; nothing
// refers to the thread that made it. (Only loaned messages do, and these are not.)
unsafe impl Send for DetectionsMessage {}

impl DetectionsMessage {
    /// `class_names[class]` becomes a detection's `class_id`.
    pub fn new(class_names: &[String], max_detections: usize) -> Self {
        use r2r::vision_msgs::msg::{Detection2D, Detection2DArray, ObjectHypothesisWithPose};
        let mut hypothesis = ObjectHypothesisWithPose::default();
        // With the longest name in place, every name will fit.
        hypothesis.hypothesis.class_id = class_names.iter().max_by_key(|n| n.len()).cloned().unwrap_or_default();
        // As for the names, room for the longest identity.
        let blank = Detection2D { results: vec![hypothesis], id: u64::MAX.to_string(), ..Default::default() };
        let message = Detection2DArray { detections: vec![blank; max_detections], ..Default::default() };
        Self { native: NativeMsg::from(&message), class_names: class_names.to_vec() }
    }

    /// Whether it has room for `count` detections of these classes.
    pub fn fits(&self, class_names: &[String], count: usize) -> bool {
        self.class_names == class_names && count <= self.native.detections.capacity
    }

    /// Boxes in pixels of the source image; `identities` of their tracks, 0 or missing for those
    /// without one.
    pub fn fill(&mut self, header: &NativeHeader, detections: &[Detection], identities: &[u64]) {
        set_header(&mut self.native.header, header);
        let room = self.native.detections.capacity;
        let count = detections.len().min(room);
        let slots: &mut [NativeDetection] = match count {
            0 => &mut [],
            // SAFETY: `new` made `capacity` detections there. The size may be anything up to that:
            // ROS sends `size` elements and frees `capacity`.
            _ => unsafe { std::slice::from_raw_parts_mut(self.native.detections.data, count) },
        };
        self.native.detections.size = count;
        let identities = identities.iter().copied().chain(std::iter::repeat(0));
        for ((slot, detection), identity) in slots.iter_mut().zip(detections).zip(identities) {
            set_header(&mut slot.header, header);
            set_identity(&mut slot.id, identity);
            let b = &detection.bbox;
            slot.bbox.center.position.x = f64::from(b.x_min + b.x_max) / 2.0;
            slot.bbox.center.position.y = f64::from(b.y_min + b.y_max) / 2.0;
            slot.bbox.size_x = f64::from(b.x_max - b.x_min);
            slot.bbox.size_y = f64::from(b.y_max - b.y_min);
            // SAFETY: `new` gave every detection one result.
            let result = unsafe { &mut *slot.results.data };
            result.hypothesis.score = f64::from(detection.score);
            let name = self.class_names.get(detection.class).map_or("", |n| n.as_str());
            set_string(&mut result.hypothesis.class_id, name.as_bytes());
        }
    }
}

/// The fields of a `peregrine_msgs/FrameTiming` without header and counts, in ns. Times are on the
/// ROS clock; 0 for a stage not reached.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timing {
    pub sequence: u64,
    pub arrival: Nanoseconds,
    pub preprocess_start: Nanoseconds,
    pub preprocess_end: Nanoseconds,
    pub inference_end: Nanoseconds,
    pub decode_end: Nanoseconds,
    pub track_end: Nanoseconds,
    pub publish: Nanoseconds,
    pub verdict: u8,
    pub deadline: Nanoseconds,
    /// Stamp to publish.
    pub latency: Nanoseconds,
}

/// A `peregrine_msgs/FrameTiming`.
pub struct TimingMessage {
    pub native: NativeMsg<r2r::peregrine_msgs::msg::FrameTiming>,
}

// SAFETY: as for `DetectionsMessage`.
unsafe impl Send for TimingMessage {}

impl Default for TimingMessage {
    fn default() -> Self {
        Self { native: NativeMsg::new() }
    }
}

impl TimingMessage {
    pub fn fill(&mut self, header: &NativeHeader, timing: &Timing, counts: &FrameCounts) {
        let m = &mut *self.native;
        set_header(&mut m.header, header);
        m.sequence = timing.sequence;
        set_time(&mut m.arrival, timing.arrival);
        set_time(&mut m.preprocess_start, timing.preprocess_start);
        set_time(&mut m.preprocess_end, timing.preprocess_end);
        set_time(&mut m.inference_end, timing.inference_end);
        set_time(&mut m.decode_end, timing.decode_end);
        set_time(&mut m.track_end, timing.track_end);
        set_time(&mut m.publish, timing.publish);
        m.verdict = timing.verdict;
        m.deadline_ms = milliseconds(timing.deadline);
        m.latency_ms = milliseconds(timing.latency);
        m.latency_from_arrival_ms = milliseconds(timing.publish - timing.arrival);
        m.arrived = counts.arrived;
        m.published_on_time = counts.on_time;
        m.published_late = counts.late;
        m.superseded = counts.superseded;
        m.dropped_late = counts.dropped_late;
        m.rejected = counts.rejected;
    }
}

fn milliseconds(ns: Nanoseconds) -> f32 {
    (ns as f64 / 1e6) as f32
}

/// A `sensor_msgs/Image` of encoding mono8, at the resolution of the segmentation mask or of the
/// image.
pub struct MaskMessage {
    pub native: NativeMsg<r2r::sensor_msgs::msg::Image>,
    /// Whether the mask has the resolution of the image.
    pub at_source_resolution: bool,
}

// SAFETY: as for `DetectionsMessage`.
unsafe impl Send for MaskMessage {}

impl Default for MaskMessage {
    fn default() -> Self {
        let mut native = NativeMsg::<r2r::sensor_msgs::msg::Image>::new();
        set_string(&mut native.encoding, b"mono8");
        Self { native, at_source_resolution: false }
    }
}

impl MaskMessage {
    /// Each pixel is `value(class)`. `source` is the image's size. Allocates only for a mask larger
    /// than every earlier one.
    pub fn fill(&mut self, header: &NativeHeader, mask: &ClassMask, source: (usize, usize), value: impl Fn(u8) -> u8) {
        let scaled = self.at_source_resolution && !mask.classes.is_empty();
        let (width, height) = if scaled { source } else { (mask.width, mask.height) };
        let m = &mut *self.native;
        set_header(&mut m.header, header);
        m.width = width as u32;
        m.height = height as u32;
        m.step = m.width;
        if m.data.capacity < width * height {
            m.data.update(&vec![0; width * height]);
        }
        if m.data.data.is_null() {
            return;
        }
        m.data.size = width * height;
        // SAFETY: there is room for `capacity` bytes, and `size` is no more than that.
        let pixels = unsafe { std::slice::from_raw_parts_mut(m.data.data, m.data.size) };
        if (width, height) == (mask.width, mask.height) {
            pixels.iter_mut().zip(&mask.classes).for_each(|(pixel, &class)| *pixel = value(class));
            return;
        }
        // Pixel x belongs to cell x · cells / pixels, as in `ClassMask::at`: each row of cells is
        // expanded once, cell by cell, and then copied.
        let begin = |cell: usize, cells: usize, pixels: usize| (cell * pixels).div_ceil(cells);
        for row in 0..mask.height {
            let (top, bottom) = (begin(row, mask.height, height), begin(row + 1, mask.height, height));
            if top == bottom {
                continue;
            }
            let cells = &mask.classes[row * mask.width..][..mask.width];
            let line = &mut pixels[top * width..][..width];
            for (column, &class) in cells.iter().enumerate() {
                line[begin(column, mask.width, width)..begin(column + 1, mask.width, width)].fill(value(class));
            }
            for below in top + 1..bottom {
                pixels.copy_within(top * width..(top + 1) * width, below * width);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peregrine_core::BoundingBox;
    use r2r::peregrine_msgs::msg::FrameTiming;
    use r2r::vision_msgs::msg::Detection2DArray;

    fn header(frame_id: &str) -> NativeMsg<r2r::std_msgs::msg::Header> {
        let stamp = r2r::builtin_interfaces::msg::Time { sec: 12, nanosec: 345 };
        NativeMsg::from(&r2r::std_msgs::msg::Header { stamp, frame_id: frame_id.into() })
    }

    fn detection(class: usize) -> Detection {
        Detection { class, score: 0.5, bbox: BoundingBox::new(10.0, 20.0, 40.0, 60.0) }
    }

    fn message(max_detections: usize) -> DetectionsMessage {
        DetectionsMessage::new(&["car".to_owned(), "two-wheeler".to_owned()], max_detections)
    }

    #[test]
    fn a_box_is_sent_as_centre_and_size_with_name_and_header() {
        let mut message = message(8);
        message.fill(&header("front"), &[detection(1)], &[]);
        let sent = Detection2DArray::from_native(&message.native);
        assert_eq!(
            (sent.header.frame_id.as_str(), sent.header.stamp.sec, sent.header.stamp.nanosec),
            ("front", 12, 345)
        );
        let [d] = &sent.detections[..] else { panic!("{sent:?}") };
        assert_eq!((d.header.clone(), d.id.as_str()), (sent.header.clone(), ""));
        assert_eq!((d.bbox.center.position.x, d.bbox.center.position.y, d.bbox.center.theta), (25.0, 40.0, 0.0));
        assert_eq!((d.bbox.size_x, d.bbox.size_y), (30.0, 40.0));
        let [result] = &d.results[..] else { panic!("{d:?}") };
        assert_eq!((result.hypothesis.class_id.as_str(), result.hypothesis.score), ("two-wheeler", 0.5));
    }

    #[test]
    fn nothing_is_left_of_the_frame_before() {
        let mut message = message(8);
        message.fill(&header("a long name of a camera"), &[detection(1), detection(1), detection(1)], &[7, 8, 9]);
        message.fill(&header("b"), &[detection(0)], &[0]);
        let sent = Detection2DArray::from_native(&message.native);
        assert_eq!((sent.detections.len(), sent.header.frame_id.as_str()), (1, "b"));
        assert_eq!(sent.detections[0].results[0].hypothesis.class_id, "car");
        assert_eq!(sent.detections[0].id, "");
        message.fill(&header("an even longer name of a camera"), &[], &[]);
        let sent = Detection2DArray::from_native(&message.native);
        assert_eq!((sent.detections.len(), sent.header.frame_id.as_str()), (0, "an even longer name of a camera"));
    }

    #[test]
    fn identities_are_sent_in_decimal() {
        let mut message = message(8);
        message.fill(&header("front"), &[detection(0), detection(1), detection(0)], &[u64::MAX, 0, 120]);
        let sent = Detection2DArray::from_native(&message.native);
        let ids: Vec<_> = sent.detections.iter().map(|d| d.id.as_str()).collect();
        assert_eq!(ids, ["18446744073709551615", "", "120"]);
    }

    #[test]
    fn detections_beyond_the_capacity_are_left_out() {
        let mut message = message(2);
        message.fill(&header("front"), &[detection(0), detection(1), detection(0)], &[]);
        assert_eq!(Detection2DArray::from_native(&message.native).detections.len(), 2);
    }

    #[test]
    fn times_and_latencies_are_sent_in_their_units() {
        let mut message = TimingMessage::default();
        let timing = Timing {
            sequence: 7,
            arrival: 12_000_000_400,
            publish: 12_020_000_400,
            verdict: 1,
            deadline: 15_000_000,
            latency: 20_000_055,
            ..Timing::default()
        };
        message.fill(
            &header("front"),
            &timing,
            &FrameCounts { arrived: 9, late: 7, superseded: 1, in_flight: 1, ..FrameCounts::default() },
        );
        let sent = FrameTiming::from_native(&message.native);
        assert_eq!((sent.arrival.sec, sent.arrival.nanosec), (12, 400));
        assert_eq!((sent.inference_end.sec, sent.inference_end.nanosec), (0, 0));
        assert_eq!((sent.deadline_ms, sent.latency_from_arrival_ms), (15.0, 20.0));
        assert!((sent.latency_ms - 20.000_055).abs() < 1e-5);
        assert_eq!((sent.sequence, sent.verdict, sent.arrived, sent.published_late, sent.superseded), (7, 1, 9, 7, 1));
    }

    #[test]
    fn a_mask_may_grow_and_shrink() {
        let mut message = MaskMessage::default();
        for (width, height) in [(4, 2), (8, 4), (2, 1)] {
            let mask = ClassMask { width, height, classes: (0..width * height).map(|i| i as u8 % 4).collect() };
            message.fill(&header("front"), &mask, (64, 48), |class| if class == 3 { 255 } else { 0 });
            let sent = r2r::sensor_msgs::msg::Image::from_native(&message.native);
            assert_eq!((sent.width as usize, sent.height as usize, sent.step as usize), (width, height, width));
            assert_eq!(sent.encoding, "mono8");
            let expected: Vec<u8> = mask.classes.iter().map(|&c| if c == 3 { 255 } else { 0 }).collect();
            assert_eq!(sent.data, expected);
        }
    }

    #[test]
    fn at_source_resolution_each_pixel_has_the_class_of_its_cell() {
        let mut message = MaskMessage { at_source_resolution: true, ..MaskMessage::default() };
        // Larger and smaller than the mask, and no multiple of it.
        for (width, height) in [(64, 48), (23, 11), (3, 2), (1, 1)] {
            let mask = ClassMask { width: 7, height: 5, classes: (0..35).collect() };
            message.fill(&header("front"), &mask, (width, height), |class| class + 1);
            let sent = r2r::sensor_msgs::msg::Image::from_native(&message.native);
            assert_eq!((sent.width as usize, sent.height as usize, sent.step as usize), (width, height, width));
            for (i, &value) in sent.data.iter().enumerate() {
                let expected = mask.at(i % width, i / width, (width, height)).map(|class| class + 1);
                assert_eq!(Some(value), expected, "pixel {i} of {width}x{height}");
            }
        }
    }
}
