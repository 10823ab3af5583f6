//! A frame as the messages that are kept of it: the image as JPEG, its detections, its timing.

use r2r::diagnostic_msgs::msg::DiagnosticArray;
use r2r::peregrine_msgs::msg::FrameTiming;
use r2r::rcl_interfaces::msg::ParameterEvent;
use r2r::sensor_msgs::msg::CompressedImage;
use r2r::vision_msgs::msg::Detection2DArray;
use r2r::WrappedTypesupport;

use super::ring::Message;
use crate::capture::CapturedFrame;
use crate::clock::Nanoseconds;
use crate::incoming::ImageMessage;
use crate::messages::{bytes, DetectionsMessage, NativeHeader, TimingMessage};
use crate::picture::PictureEncoder;

/// What a message is of; with the index of a camera where it is of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    Image(usize),
    Detections(usize),
    Timing(usize),
    Diagnostics,
    Parameters,
}

impl Channel {
    /// Type of its messages.
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Image(_) => "sensor_msgs/msg/CompressedImage",
            Self::Detections(_) => "vision_msgs/msg/Detection2DArray",
            Self::Timing(_) => "peregrine_msgs/msg/FrameTiming",
            Self::Diagnostics => "diagnostic_msgs/msg/DiagnosticArray",
            Self::Parameters => "rcl_interfaces/msg/ParameterEvent",
        }
    }
}

/// Makes messages, with buffers that are used again.
#[derive(Default)]
pub struct Serializer {
    pictures: PictureEncoder,
    detections: Option<DetectionsMessage>,
    timing: TimingMessage,
}

impl Serializer {
    /// The messages of a frame, and whether its image is among them: not where it cannot be
    /// decoded, or ROS refuses.
    pub fn frame(&mut self, frame: &CapturedFrame) -> (Vec<Message>, bool) {
        let Some(image) = &frame.message else { return (Vec::new(), false) };
        let (header, camera) = (image.header(), frame.camera);
        let message = |channel, log_time, data: Vec<u8>| Message {
            channel,
            log_time,
            sequence: frame.sequence,
            data: data.into(),
        };
        let mut messages = Vec::new();
        let picture = self.picture(image).and_then(|picture| picture.to_serialized_bytes().ok());
        let has_image = picture.is_some();
        messages.extend(picture.map(|data| message(Channel::Image(camera), frame.arrival.ros, data)));
        let Some((timing, counts)) = &frame.timing else { return (messages, has_image) };
        if let Some(data) = self.detections(header, frame) {
            messages.push(message(Channel::Detections(camera), timing.publish, data));
        }
        self.timing.fill(header, timing, counts);
        let data = FrameTiming::from_native(&self.timing.native).to_serialized_bytes();
        messages.extend(data.ok().map(|data| message(Channel::Timing(camera), timing.publish, data)));
        (messages, has_image)
    }

    /// As it came, if it is compressed; of a video a picture of its own, which needs no other.
    fn picture(&mut self, image: &ImageMessage) -> Option<CompressedImage> {
        match image {
            ImageMessage::Compressed(message) => return Some(CompressedImage::from_native(message)),
            ImageMessage::Raw(..) | ImageMessage::Packet(_) | ImageMessage::Video(..) => {}
        }
        let picture = self.pictures.encode(image)?;
        // In the words of image_transport.
        let format = if picture.is_grey { "mono8; jpeg compressed mono8" } else { "rgb8; jpeg compressed bgr8" };
        Some(CompressedImage { header: header(image.header()), format: format.into(), data: picture.jpeg.to_vec() })
    }

    /// As they were published; `None` for a frame without a result.
    fn detections(&mut self, header: &NativeHeader, frame: &CapturedFrame) -> Option<Vec<u8>> {
        let found = &frame.annotations;
        let classes = &found.classes.as_ref()?.detection;
        let fits = |message: &&mut DetectionsMessage| message.fits(classes, found.detections.len());
        if self.detections.as_mut().filter(fits).is_none() {
            self.detections = Some(DetectionsMessage::new(classes, found.detections.len().max(100)));
        }
        let message = self.detections.as_mut()?;
        message.fill(header, &found.detections, &found.identities);
        Detection2DArray::from_native(&message.native).to_serialized_bytes().ok()
    }
}

/// A message of no frame.
fn of_node<T: WrappedTypesupport>(channel: Channel, log_time: Nanoseconds, message: &T) -> Option<Message> {
    let data = message.to_serialized_bytes().ok()?;
    Some(Message { channel, log_time, sequence: 0, data: data.into() })
}

/// The diagnostics, at their own time.
pub fn diagnostics(array: &DiagnosticArray) -> Option<Message> {
    of_node(Channel::Diagnostics, nanoseconds(&array.header.stamp), array)
}

/// Parameters, from the time in the event on.
pub fn parameters(event: &ParameterEvent) -> Option<Message> {
    of_node(Channel::Parameters, nanoseconds(&event.stamp), event)
}

fn nanoseconds(time: &r2r::builtin_interfaces::msg::Time) -> Nanoseconds {
    i64::from(time.sec) * 1_000_000_000 + i64::from(time.nanosec)
}

fn header(header: &NativeHeader) -> r2r::std_msgs::msg::Header {
    r2r::std_msgs::msg::Header {
        stamp: r2r::builtin_interfaces::msg::Time { sec: header.stamp.sec, nanosec: header.stamp.nanosec },
        frame_id: String::from_utf8_lossy(bytes(&header.frame_id)).into_owned(),
    }
}
