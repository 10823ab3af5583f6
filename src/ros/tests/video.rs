//! Videos from the arrival of their packets to the mailbox, where the newest picture wins: each packet
//! gets exactly one outcome, and each picture keeps its stamp.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peregrine_core::{now_ns, FrameCounts};
use peregrine_pipeline::Stage;
use peregrine_ros::clock::ClockSample;
use peregrine_ros::incoming::{Frame, ImageMessage, Unpacker};
use peregrine_ros::parameters::Parameters;
use peregrine_ros::record::Record;
use peregrine_support::ros_is_absent;
use peregrine_video::Codec;
use r2r::{NativeMsg, ParameterValue};

use crate::in_process::{small, Parts};
use crate::streams::{sample, Sample};

const EPOCH: i32 = 1_700_000_000;

/// The real parts of the node, for one camera whose frames nothing takes.
struct Rig(Parts);

impl Rig {
    fn new(name: &str) -> Self {
        let parameters: Parameters = small([]);
        Self(Parts::new(name, 1, &parameters))
    }

    /// A packet of `format`, stamped with its number in seconds.
    fn send(&mut self, format: &str, number: usize, packet: &[u8]) {
        let mut message = NativeMsg::<r2r::sensor_msgs::msg::CompressedImage>::new();
        message.header.stamp.sec = EPOCH + number as i32;
        message.format.assign(format);
        message.data.update(packet);
        let now = ClockSample { ros: i64::from(EPOCH) * 1_000_000_000, monotonic: now_ns() };
        self.0.arrivals[0].accept(ImageMessage::Compressed(message), now);
    }

    fn send_all(&mut self, format: &str, sample: &Sample, skip: impl Fn(usize) -> bool) {
        for (number, packet) in sample.packets.iter().enumerate().filter(|(number, _)| !skip(*number)) {
            self.send(format, number, packet);
        }
    }

    fn counts(&self) -> FrameCounts {
        self.0.shared.cameras[0].accounting.counts()
    }

    /// Waits until at most `waiting` frames, those in the mailbox, have no outcome.
    fn settle(&self, waiting: u64) -> FrameCounts {
        let give_up = Instant::now() + Duration::from_secs(60);
        while self.counts().in_flight > waiting {
            assert!(Instant::now() < give_up, "{:?}", self.counts());
            std::thread::sleep(Duration::from_millis(2));
        }
        self.counts()
    }

    fn take(&self) -> Option<Frame> {
        self.0.shared.mailbox.take_timeout(Duration::from_secs(60)).map(|(_, frame)| frame)
    }

    /// Reasons of all rejections so far.
    fn reasons(&self) -> Vec<&'static str> {
        let records = std::iter::from_fn(|| self.0.shared.cameras[0].records.pop());
        records.filter_map(|r| if let Record::Rejected(why) = r { Some(why.reason()) } else { None }).collect()
    }
}

fn number(frame: &Frame) -> usize {
    (frame.message.header().stamp.sec - EPOCH) as usize
}

/// The bytes of the picture that the frame thread sees.
fn pixels(frame: &Frame) -> Vec<u8> {
    let mut unpacker = Unpacker::default();
    let view = unpacker.view(&frame.message).unwrap();
    assert_eq!(view.encoding().ros_name(), "yuv420");
    view.rows().flatten().copied().collect()
}

#[test]
fn each_picture_reaches_the_mailbox_with_its_stamp() {
    for (codec, format) in [(Codec::H264, "h264"), (Codec::H265, "hevc;yuv420p;bgr8")] {
        let Some(sample) = sample(codec, "320x240", 12, &[]) else { return };
        if ros_is_absent() {
            return;
        }
        let mut rig = Rig::new("video_stamps");
        for (at, packet) in sample.packets.iter().enumerate() {
            rig.send(format, at, packet);
            let frame = rig.take().expect("a picture");
            assert_eq!((number(&frame), frame.sequence), (at, at as u64 + 1));
            assert!(pixels(&frame) == sample.pictures[at], "{codec:?} {at}");
        }
    }
}

#[test]
fn all_packets_are_decoded_and_the_newest_picture_wins() {
    let Some(sample) = sample(Codec::H264, "320x240", 25, &[]) else { return };
    if ros_is_absent() {
        return;
    }
    let mut rig = Rig::new("video_newest");
    rig.send_all("h264", &sample, |_| false);
    let counts = rig.settle(1);
    assert_eq!((counts.arrived, counts.superseded, counts.rejected, counts.in_flight), (25, 24, 0, 1));
    let frame = rig.take().expect("a picture");
    assert_eq!(number(&frame), 24);
    assert!(pixels(&frame) == sample.pictures[24], "it was decoded from all before it");
}

#[test]
fn before_a_key_frame_and_after_a_gap_packets_are_rejected() {
    let Some(sample) = sample(Codec::H264, "320x240", 31, &[]) else { return };
    if ros_is_absent() {
        return;
    }
    let mut rig = Rig::new("video_gap");
    rig.send_all("h264", &sample, |number| number < 7 || number == 14);
    let counts = rig.settle(1);
    // 7, 8 and 9 have no key frame; 15 misses 14; 16 to 19 have no key frame.
    assert_eq!((counts.arrived, counts.rejected, counts.superseded), (23, 8, 14));
    let expected = [vec!["no_key_frame"; 3], vec!["damaged"], vec!["no_key_frame"; 4]].concat();
    assert_eq!(rig.reasons(), expected);
    assert_eq!(number(&rig.take().expect("a picture")), 30);
}

#[test]
fn a_flood_and_a_stop_leave_no_frame_without_outcome() {
    let Some(sample) = sample(Codec::H264, "640x480", 10, &[]) else { return };
    if ros_is_absent() {
        return;
    }
    let mut rig = Rig::new("video_flood");
    for _ in 0..40 {
        rig.send_all("H264", &sample, |_| false);
    }
    rig.send("h264", 0, &[0, 0, 0, 7]);
    rig.0.arrivals[0].set_active(false);
    let counts = rig.settle(1);
    assert_eq!(counts.arrived, 401);
    assert_eq!(counts.superseded + counts.rejected + counts.in_flight, 401);
    let allowed = ["decoder_behind", "no_key_frame", "video_format"];
    let reasons = rig.reasons();
    assert!(reasons.iter().all(|reason| allowed.contains(reason)) && reasons.contains(&"video_format"), "{reasons:?}");
    let give_up = Instant::now() + Duration::from_secs(60);
    while rig.0.shared.decoders.load(std::sync::atomic::Ordering::Acquire) > 0 {
        assert!(Instant::now() < give_up, "the thread ends with the stream");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_packet_that_is_decoded_for_too_long_is_a_stall_in_video() {
    if ros_is_absent() {
        return;
    }
    // Frames that take longer than the shortest time that can be set.
    let parameters: Parameters = small([("stall_after_ms", ParameterValue::Double(10.0))]);
    let Some(sample) = sample(Codec::H264, "3840x3840", 6, &["-qp", "8"]) else { return };
    let mut rig = Rig(Parts::new("video_stall", 1, &parameters));
    let shared = Arc::clone(&rig.0.shared);
    let (thread, stop) = crate::stalls::watchdog(&shared, None);
    let give_up = Instant::now() + Duration::from_secs(60);
    let mut stall = None;
    // Only where libavcodec is: elsewhere each packet is rejected at once.
    for number in (0..).take_while(|_| Instant::now() < give_up) {
        if number < sample.packets.len() {
            rig.send("h264", number, &sample.packets[number]);
        }
        for _ in 0..20 {
            stall = stall.or_else(|| shared.watch.stall());
            std::thread::sleep(Duration::from_millis(1));
        }
        if stall.is_some() || rig.counts().rejected > 0 {
            break;
        }
    }
    stop.store(true, Relaxed);
    thread.thread().unpark();
    thread.join().unwrap();
    if rig.counts().rejected > 0 {
        return peregrine_support::skip("ffmpeg", "libavcodec does not decode here");
    }
    let stall = stall.expect("a stall is seen");
    assert_eq!((stall.camera, stall.stage), (0, Stage::Video));
    // It ends with the last packet.
    while shared.cameras[0].decoding.in_flight(now_ns()).is_some() {
        assert!(Instant::now() < give_up, "it is said to be decoded for ever");
        std::thread::sleep(Duration::from_millis(1));
    }
}
