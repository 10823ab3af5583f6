//! From the library's planes to a picture of our own: I420 of 8 bits, in BT.601, without padding.

use super::fault::VideoFault;
use super::layout::Layout;
use super::libavcodec::Frame;
use super::matrix::Matrix;
use super::picture::{Buffers, Picture};

/// A copy of a frame in a buffer of `buffers`.
///
/// # Errors
/// Its pixels are of a layout, size or matrix that is not supported.
pub fn picture(frame: &Frame, buffers: &Buffers) -> Result<Picture, VideoFault> {
    let name = frame.pixel_format();
    let layout = Layout::named(name).ok_or(VideoFault::PixelFormat(name))?;
    let (width, height) = frame.size();
    // Crops are of whole pairs where two pixels share their chroma (H.264, table 6-1).
    if width == 0 || height == 0 || width % 2 != 0 || height % 2 != 0 {
        return Err(VideoFault::PixelFormat("of an odd size"));
    }
    let matrix = Matrix::numbered(frame.matrix()).ok_or(VideoFault::PixelFormat("with its matrix of colours"))?;
    let full_range = layout.full_range || frame.is_full_range();
    let picture_of =
        |data| Picture { data, width: width as u32, height: height as u32, full_range, home: buffers.clone() };
    let mut data = buffers.take();
    data.reserve_exact(width * height * 3 / 2);
    let copied = plane(frame, layout, 0, (width, height), (1, 1), &mut data);
    copied.ok_or(VideoFault::PixelFormat(name))?;
    let Some((along, down)) = layout.shared else {
        // Grey: no chroma.
        data.resize(width * height * 3 / 2, 128);
        return Ok(picture_of(data));
    };
    for chroma in [1, 2] {
        let copied = plane(frame, layout, chroma, (width / 2, height / 2), (2 / along, 2 / down), &mut data);
        copied.ok_or(VideoFault::PixelFormat(name))?;
    }
    if let Some(conversion) = matrix.conversion(full_range) {
        conversion.apply(&mut data, width, height);
    }
    Ok(picture_of(data))
}

/// Appends `width` × `height` values to `data`, each the mean of `along` × `down` of a plane of
/// `frame`; `None` if it has no such plane.
fn plane(
    frame: &Frame,
    layout: Layout,
    plane: usize,
    (width, height): (usize, usize),
    (along, down): (usize, usize),
    data: &mut Vec<u8>,
) -> Option<()> {
    let bytes = width * along * layout.bytes();
    // SAFETY: the planes of the frame's layout have so many rows and bytes.
    let row = |y: usize| unsafe { frame.row(plane, y, bytes) };
    for y in 0..height {
        let (first, last) = (row(y * down)?, row(y * down + down - 1)?);
        match (layout.bytes(), along, down) {
            (1, 1, 1) => data.extend_from_slice(first),
            (1, ..) => mean(data, first, last, along, |&[v]| u32::from(v)),
            _ => {
                let (half, shift) = (1 << (layout.bits - 9), layout.bits - 8);
                mean(data, first, last, along, |&v| ((u32::from(u16::from_le_bytes(v)) + half) >> shift).min(255));
            }
        }
    }
    Some(())
}

/// Appends the means of `along` values of `first` and as many of `last`, a value of `N` bytes; the
/// two rows are one and the same where rows are not to be joined.
fn mean<const N: usize>(data: &mut Vec<u8>, first: &[u8], last: &[u8], along: usize, value: impl Fn(&[u8; N]) -> u32) {
    let (first, last) = (first.as_chunks::<N>().0, last.as_chunks::<N>().0);
    if along == 1 {
        data.extend(first.iter().zip(last).map(|(a, b)| (value(a) + value(b)).div_ceil(2) as u8));
    } else {
        let pairs = first.as_chunks::<2>().0.iter().zip(last.as_chunks::<2>().0);
        data.extend(pairs.map(|([a, b], [c, d])| ((value(a) + value(b) + value(c) + value(d) + 2) / 4) as u8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_rounded_and_one_row_is_itself() {
        let mut data = Vec::new();
        mean(&mut data, &[1, 2, 3, 255], &[1, 2, 3, 255], 1, |&[v]| u32::from(v));
        assert_eq!(data, [1, 2, 3, 255]);
        data.clear();
        mean(&mut data, &[1, 2, 3, 255], &[2, 4, 0, 255], 2, |&[v]| u32::from(v));
        assert_eq!(data, [2, 128]);
    }
}
