//! The walk from marker to marker (ITU-T T.81, B.1), and the count of restart intervals.

use super::entropy::Tables;
use super::frame::{FrameHeader, ScanHeader};
use super::tables::STANDARD;
use super::JpegFault;

const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;

/// A JPEG whose markers are all there, and whose restart intervals are whole in number and order. What follows the end of
/// the image, such as a phone's film or a driver's padding, is no part of it.
#[derive(Debug, Clone, Copy)]
pub struct Structure<'a> {
    data: &'a [u8],
    frame: FrameHeader,
    lacks_tables: bool,
}

impl<'a> Structure<'a> {
    /// Walks through the file. Does not allocate.
    ///
    /// # Errors
    /// What is missing or out of order. Where bits are lost within an interval, only [`check_data`](Self::check_data) finds it.
    pub fn read(data: &'a [u8]) -> Result<Self, JpegFault> {
        let (mut frame, mut has_tables, mut lacks_tables, mut interval, mut scans) = (None, [false; 2], false, 0, 0);
        let mut segments = Segments::new(data);
        loop {
            let (marker, segment) = segments.next().ok_or(JpegFault::Truncated)??;
            match marker {
                EOI if scans > 0 => break,
                EOI => return Err(JpegFault::Header("scan: there is none")),
                0xC4 => table_classes(segment).for_each(|class| has_tables[class] = true),
                0xC0..=0xCF if !matches!(marker, 0xC8 | 0xCC) => frame = Some(FrameHeader::read(marker, segment)?),
                0xDA => {
                    let frame = frame.as_ref().ok_or(JpegFault::Header("frame header (SOF): there is none"))?;
                    let scan = ScanHeader::read(frame, segment)?;
                    scans += 1;
                    lacks_tables |= frame.sequential && has_tables == [false; 2];
                    let mut markers = RestartMarkers::default();
                    segments.skip_data(|number, is_followed| markers.see(number, interval, is_followed))?;
                    if frame.huffman {
                        markers.check(scan.units, interval)?;
                    }
                }
                0xDD => interval = restart_interval(segment)?,
                _ => {}
            }
        }
        let frame = frame.ok_or(JpegFault::Header("frame header (SOF): there is none"))?;
        Ok(Self { data: &data[..segments.at], frame, lacks_tables })
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.frame.width, self.frame.height)
    }

    /// Whether it is of several passes, whose data [`check_data`](Self::check_data) does not follow.
    pub fn is_progressive(&self) -> bool {
        !self.frame.sequential
    }

    /// Whether it has no Huffman tables of its own, and stands for the standard ones.
    pub fn lacks_tables(&self) -> bool {
        self.lacks_tables
    }

    /// The bytes from the start to the end of the image.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Replaces `out` by this image with the standard tables, which tables of its own would override.
    pub fn write_with_tables(&self, out: &mut Vec<u8>) {
        let (start, rest) = self.data.split_at(2);
        out.clear();
        out.reserve(self.data.len() + STANDARD.len() + 4);
        out.extend_from_slice(start);
        out.extend_from_slice(&[0xFF, 0xC4]);
        out.extend_from_slice(&(STANDARD.len() as u16 + 2).to_be_bytes());
        out.extend_from_slice(&STANDARD);
        out.extend_from_slice(rest);
    }

    /// Follows the codes of a sequential image: every restart interval must hold its blocks, and no more than a little
    /// padding beside them. Does not allocate.
    ///
    /// # Errors
    /// The first interval at fault.
    pub fn check_data(&self) -> Result<(), JpegFault> {
        if !self.frame.sequential {
            return Ok(());
        }
        let (mut tables, mut interval) = (Tables::new(), 0);
        if self.lacks_tables {
            tables.define(&STANDARD)?;
        }
        let mut segments = Segments::new(self.data);
        while let Some(segment) = segments.next() {
            match segment? {
                (0xC4, segment) => tables.define(segment)?,
                (0xDD, segment) => interval = restart_interval(segment)?,
                (0xDA, segment) => {
                    let scan = ScanHeader::read(&self.frame, segment)?;
                    let mut from = segments.at;
                    let mut intervals = tables.intervals(&scan, interval);
                    segments.skip_data_at(|_, marker, next| {
                        intervals.follow(&self.data[from..marker])?;
                        from = next;
                        Ok(())
                    })?;
                    intervals.follow(&self.data[from..segments.at])?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The classes, 0 for DC and 1 for AC, of the tables in a DHT segment.
fn table_classes(mut segment: &[u8]) -> impl Iterator<Item = usize> + '_ {
    std::iter::from_fn(move || {
        let (head, rest) = segment.split_at_checked(17)?;
        let values: usize = head[1..].iter().map(|&n| usize::from(n)).sum();
        segment = rest.get(values..).unwrap_or(&[]);
        Some(usize::from(head[0] >> 4 & 1))
    })
}

fn restart_interval(segment: &[u8]) -> Result<usize, JpegFault> {
    match *segment {
        [high, low, ..] => Ok(usize::from(u16::from_be_bytes([high, low]))),
        _ => Err(JpegFault::Header("restart interval (DRI)")),
    }
}

/// The restart markers of one scan.
#[derive(Default)]
struct RestartMarkers {
    number: usize,
    /// Whether compressed data follows the last.
    is_followed: bool,
}

impl RestartMarkers {
    /// Takes the next marker, of that number.
    fn see(&mut self, found: u8, interval: usize, is_followed: bool) -> Result<(), JpegFault> {
        let expected = (self.number % 8) as u8;
        if interval > 0 && found != expected {
            return Err(JpegFault::Restart { expected, found });
        }
        if self.number > 0 && !self.is_followed {
            return Err(JpegFault::Empty { interval: self.number });
        }
        self.number += 1;
        self.is_followed = is_followed;
        Ok(())
    }

    /// Checks the count against the units of the scan. One marker behind the last interval is harmless.
    fn check(&self, units: usize, interval: usize) -> Result<(), JpegFault> {
        if interval == 0 {
            return if self.number == 0 { Ok(()) } else { Err(JpegFault::UndeclaredRestart) };
        }
        let (expected, found) = (units.div_ceil(interval), self.number + 1);
        let is_closed = found == expected + 1 && !self.is_followed;
        if is_closed {
            Ok(())
        } else if found != expected {
            Err(JpegFault::Intervals { expected, found })
        } else if self.number > 0 && !self.is_followed {
            // Not even one bit for a block.
            Err(JpegFault::Empty { interval: self.number })
        } else {
            Ok(())
        }
    }
}

/// The segments of a file, one by one.
struct Segments<'a> {
    data: &'a [u8],
    /// Behind what was read.
    at: usize,
}

impl<'a> Segments<'a> {
    fn new(data: &'a [u8]) -> Self {
        Self { data, at: 2.min(data.len()) }
    }

    /// The next marker and its segment's contents; of markers without a segment, nothing. Bytes before a marker are
    /// passed over, as decoders do.
    fn next(&mut self) -> Option<Result<(u8, &'a [u8]), JpegFault>> {
        loop {
            self.at += memchr::memchr(0xFF, self.data.get(self.at..)?)? + 1;
            self.at += self.data[self.at..].iter().take_while(|&&byte| byte == 0xFF).count();
            let marker = *self.data.get(self.at)?;
            self.at += 1;
            match marker {
                0x00 | 0x01 | 0xD0..=SOI => continue,
                EOI => return Some(Ok((EOI, &[]))),
                _ => {}
            }
            let length = usize::from(u16::from_be_bytes(self.data.get(self.at..self.at + 2)?.try_into().ok()?));
            if length < 2 {
                return Some(Err(JpegFault::Header("segment: its length is below 2")));
            }
            let segment = self.data.get(self.at + 2..self.at + length)?;
            self.at += length;
            return Some(Ok((marker, segment)));
        }
    }

    /// Skips the compressed data of a scan. `see` gets the number of each restart marker, and whether data follows it.
    fn skip_data(&mut self, mut see: impl FnMut(u8, bool) -> Result<(), JpegFault>) -> Result<(), JpegFault> {
        let data = self.data;
        // 0xFF begins a marker, or is data if a zero follows.
        let is_data = |at: usize| data.get(at).is_some_and(|&byte| byte != 0xFF) || data.get(at + 1) == Some(&0);
        self.skip_data_at(|number, _, next| see(number, is_data(next)))
    }

    /// Skips the compressed data of a scan, up to the marker that ends it. `see` gets the number of each restart marker,
    /// where it begins (fill bytes included) and what is behind it.
    fn skip_data_at(
        &mut self,
        mut see: impl FnMut(u8, usize, usize) -> Result<(), JpegFault>,
    ) -> Result<(), JpegFault> {
        loop {
            let found = self.data.get(self.at..).and_then(|rest| memchr::memchr(0xFF, rest));
            let marker = self.at + found.ok_or(JpegFault::Truncated)?;
            let fill = self.data[marker..].iter().take_while(|&&byte| byte == 0xFF).count();
            match *self.data.get(marker + fill).ok_or(JpegFault::Truncated)? {
                0x00 => self.at = marker + fill + 1,
                code @ 0xD0..=0xD7 => {
                    self.at = marker + fill + 1;
                    see(code - 0xD0, marker, self.at)?;
                }
                _ => {
                    self.at = marker;
                    return Ok(());
                }
            }
        }
    }
}
