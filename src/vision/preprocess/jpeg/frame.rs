//! Frame and scan headers (ITU-T T.81, B.2.2 and B.2.3).

use super::JpegFault;

/// Most components of a scan.
pub const MAX_COMPONENTS: usize = 4;

/// A component's share of a minimum coded unit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Component {
    id: u8,
    /// Blocks across and down.
    pub sampling: (usize, usize),
}

/// What SOF says.
#[derive(Debug, Clone, Copy)]
pub struct FrameHeader {
    pub width: usize,
    pub height: usize,
    /// Whether the data is of one pass, with Huffman codes: what [`entropy`](super::entropy) can follow.
    pub sequential: bool,
    /// Whether the data has Huffman codes, and so restart markers as they are counted here.
    pub huffman: bool,
    components: [Component; MAX_COMPONENTS],
    number: usize,
}

impl FrameHeader {
    /// Reads the contents of the segment of that marker.
    pub fn read(marker: u8, segment: &[u8]) -> Result<Self, JpegFault> {
        let fault = JpegFault::Header("frame header (SOF)");
        let &[_precision, h1, h0, w1, w0, number, ref rest @ ..] = segment else { return Err(fault) };
        let number = usize::from(number);
        if !(1..=MAX_COMPONENTS).contains(&number) || rest.len() < 3 * number {
            return Err(fault);
        }
        let mut components = [Component::default(); MAX_COMPONENTS];
        for (component, bytes) in components.iter_mut().zip(rest.chunks_exact(3)).take(number) {
            let sampling = (usize::from(bytes[1] >> 4), usize::from(bytes[1] & 15));
            if !(1..=4).contains(&sampling.0) || !(1..=4).contains(&sampling.1) {
                return Err(fault);
            }
            *component = Component { id: bytes[0], sampling };
        }
        Ok(Self {
            width: usize::from(u16::from_be_bytes([w1, w0])),
            height: usize::from(u16::from_be_bytes([h1, h0])),
            sequential: matches!(marker, 0xC0 | 0xC1),
            huffman: matches!(marker, 0xC0..=0xC2),
            components,
            number,
        })
    }
}

/// What SOS says, with what it takes from the frame header.
#[derive(Debug, Clone, Copy)]
pub struct ScanHeader {
    /// Minimum coded units of the whole scan.
    pub units: usize,
    /// Of each component of the scan: blocks in a unit, and the numbers of its DC and AC tables.
    pub blocks: [(usize, usize, usize); MAX_COMPONENTS],
    /// Components of the scan.
    pub number: usize,
}

impl ScanHeader {
    /// Reads the contents of the segment.
    pub fn read(frame: &FrameHeader, segment: &[u8]) -> Result<Self, JpegFault> {
        let fault = JpegFault::Header("scan header (SOS)");
        let (&number, rest) = segment.split_first().ok_or(fault)?;
        let number = usize::from(number);
        if !(1..=frame.number).contains(&number) || rest.len() < 2 * number {
            return Err(fault);
        }
        let all = &frame.components[..frame.number];
        let mut blocks = [(0, 0, 0); MAX_COMPONENTS];
        let mut sampling = (1, 1);
        for (block, bytes) in blocks.iter_mut().zip(rest.chunks_exact(2)).take(number) {
            let component = all.iter().find(|c| c.id == bytes[0]).ok_or(fault)?;
            sampling = component.sampling;
            // Tables have numbers up to 3.
            *block = (sampling.0 * sampling.1, usize::from(bytes[1] >> 4 & 3), usize::from(bytes[1] & 3));
        }
        let most = |side: fn(&Component) -> usize| all.iter().map(side).max().unwrap_or(1);
        let (h, v) = (most(|c| c.sampling.0), most(|c| c.sampling.1));
        let units = if number == 1 {
            // A unit is one block, and only blocks with pixels are coded (A.2.2).
            blocks[0].0 = 1;
            let side = |pixels: usize, own: usize, most: usize| (pixels * own).div_ceil(most).div_ceil(8);
            side(frame.width, sampling.0, h) * side(frame.height, sampling.1, v)
        } else {
            frame.width.div_ceil(8 * h) * frame.height.div_ceil(8 * v)
        };
        Ok(Self { units, blocks, number })
    }
}
