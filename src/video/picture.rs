//! A decoded picture, in a buffer that goes back to its stream.

use std::fmt;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use peregrine_core::encoding::YuvRange;
use peregrine_core::{Encoding, ImageError, ImageView};

/// Most buffers that wait to be used again: as many as one camera has pictures on their way.
const SPARE: usize = 4;

/// Buffers that are used again.
#[derive(Debug, Clone)]
pub struct Buffers(Arc<ArrayQueue<Vec<u8>>>);

impl Default for Buffers {
    fn default() -> Self {
        Self(Arc::new(ArrayQueue::new(SPARE)))
    }
}

impl Buffers {
    /// An empty one.
    pub fn take(&self) -> Vec<u8> {
        let mut buffer = self.0.pop().unwrap_or_default();
        buffer.clear();
        buffer
    }
}

/// A picture: planes of Y, U and V one behind the other without padding, the latter two of half the
/// width and height (I420).
pub struct Picture {
    pub(crate) data: Vec<u8>,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) full_range: bool,
    pub(crate) home: Buffers,
}

impl Picture {
    /// The three planes.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Pixels; even.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Pixels; even.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Whether luma and chroma use all values from 0 to 255; otherwise luma is from 16 to 235 and
    /// chroma from 16 to 240.
    pub fn is_full_range(&self) -> bool {
        self.full_range
    }

    /// It as an image, of the range that the stream says.
    ///
    /// # Errors
    /// When a side is longer than an image's may be.
    pub fn view(&self) -> Result<ImageView<'_>, ImageError> {
        let range = if self.full_range { YuvRange::Full } else { YuvRange::Limited };
        ImageView::with_encoding(Encoding::I420(range), self.width, self.height, self.width, &self.data)
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({}x{}, full range: {})", self.width, self.height, self.full_range)
    }
}

impl Drop for Picture {
    fn drop(&mut self) {
        // Where there are enough of them it is freed.
        let _ = self.home.0.push(std::mem::take(&mut self.data));
    }
}
