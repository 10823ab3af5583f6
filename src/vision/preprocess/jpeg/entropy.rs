//! Whether the compressed data of a sequential image holds as many blocks as the picture has (ITU-T T.81, F.2.2): its
//! codes are followed, and nothing is computed from them.

use super::frame::ScanHeader;
use super::huffman::HuffmanTable;
use super::JpegFault;

/// Bytes behind the last block of an interval that are taken for padding, whatever they are: many cameras leave a few.
/// Zeros and ones may be any number.
const PADDING: usize = 16;

/// The tables of a file, by class (DC, AC) and number.
pub struct Tables([[Option<HuffmanTable>; 4]; 2]);

impl Tables {
    pub fn new() -> Self {
        Self([const { [const { None }; 4] }; 2])
    }

    /// Takes the tables of a DHT segment.
    pub fn define(&mut self, mut segment: &[u8]) -> Result<(), JpegFault> {
        let fault = JpegFault::Header("Huffman table (DHT)");
        while let Some((head, rest)) = segment.split_at_checked(17) {
            let counts: &[u8; 16] = head[1..].try_into().expect("16 of 17");
            let total = counts.iter().map(|&n| usize::from(n)).sum();
            let (symbols, rest) = rest.split_at_checked(total).ok_or(fault)?;
            let (class, number) = (usize::from(head[0] >> 4), usize::from(head[0] & 15));
            let table = self.0.get_mut(class).and_then(|tables| tables.get_mut(number)).ok_or(fault)?;
            *table = Some(HuffmanTable::new(counts, symbols)?);
            segment = rest;
        }
        Ok(())
    }

    /// The intervals of a scan.
    pub fn intervals<'a>(&'a self, scan: &'a ScanHeader, restart_interval: usize) -> Intervals<'a> {
        let length = if restart_interval == 0 { scan.units } else { restart_interval };
        Intervals { tables: self, scan, length, left: scan.units, index: 0 }
    }
}

/// The restart intervals of a scan, which are followed one by one.
pub struct Intervals<'a> {
    tables: &'a Tables,
    scan: &'a ScanHeader,
    /// Units of a whole interval.
    length: usize,
    /// Units of the scan that are still to come.
    left: usize,
    index: usize,
}

impl Intervals<'_> {
    /// Follows the codes of the next interval, whose bytes these are.
    pub fn follow(&mut self, data: &[u8]) -> Result<(), JpegFault> {
        let (interval, expected) = (self.index, self.length.min(self.left));
        let mut bits = Bits::new(data);
        for unit in 0..expected {
            let followed = self.unit(&mut bits);
            if bits.is_overrun() {
                return Err(JpegFault::Short { missing: expected - unit, expected, interval });
            }
            followed.ok_or(JpegFault::Code { interval })?;
        }
        let bytes = bits.surplus();
        if bytes > PADDING {
            return Err(JpegFault::Surplus { bytes, interval });
        }
        self.left -= expected;
        self.index += 1;
        Ok(())
    }

    /// Follows one minimum coded unit; `None` if there is something that is no code, or no table for it.
    #[inline(always)]
    fn unit(&self, bits: &mut Bits) -> Option<()> {
        for &(blocks, dc, ac) in &self.scan.blocks[..self.scan.number] {
            let dc = self.tables.0[0][dc].as_ref()?;
            let ac = self.tables.0[1][ac].as_ref()?;
            for _ in 0..blocks {
                block(bits, dc, ac)?;
            }
        }
        Some(())
    }
}

/// Follows the codes of one block of 64 coefficients.
#[inline(always)]
fn block(bits: &mut Bits, dc: &HuffmanTable, ac: &HuffmanTable) -> Option<()> {
    bits.refill();
    let (length, size) = dc.find(bits.next())?;
    if size > 15 {
        return None;
    }
    bits.skip(length + u32::from(size));
    let mut coefficient = 1;
    while coefficient < 64 {
        bits.refill();
        let (length, symbol) = ac.find(bits.next())?;
        let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        bits.skip(length + size);
        if size == 0 && run != 15 {
            return Some(());
        }
        coefficient += run + 1;
    }
    (coefficient == 64).then_some(())
}

/// The bits of an interval, without the zeros that are stuffed in behind each byte of ones. Behind the last there are
/// zeros.
struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, from the highest on.
    buffer: u64,
    /// Number of valid bits in `buffer`; below 0 when more were used than there are.
    available: i64,
}

impl<'a> Bits<'a> {
    fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, buffer: 0, available: 0 }
    }

    /// Makes sure of 32 bits, if there are so many.
    #[inline(always)]
    fn refill(&mut self) {
        if self.available >= 32 {
            return;
        }
        if let Some(&bytes) = self.data.get(self.at..).and_then(<[u8]>::first_chunk::<4>) {
            if !bytes.contains(&0xFF) && self.available >= 0 {
                self.buffer |= u64::from(u32::from_be_bytes(bytes)) << (32 - self.available);
                self.available += 32;
                self.at += 4;
                return;
            }
        }
        self.refill_bytes();
    }

    #[inline(never)]
    fn refill_bytes(&mut self) {
        while (0..=56).contains(&self.available) {
            let Some(&byte) = self.data.get(self.at) else { return };
            self.at += 1 + usize::from(byte == 0xFF);
            self.buffer |= u64::from(byte) << (56 - self.available);
            self.available += 8;
        }
    }

    #[inline(always)]
    fn next(&self) -> u32 {
        (self.buffer >> 32) as u32
    }

    /// Passes over at most 31 bits.
    #[inline(always)]
    fn skip(&mut self, bits: u32) {
        self.buffer <<= bits;
        self.available -= i64::from(bits);
    }

    fn is_overrun(&self) -> bool {
        self.available < 0
    }

    /// Bytes that were not used, but for those in the end that are all zeros or all ones.
    fn surplus(&self) -> usize {
        let available = self.available.clamp(0, 64) as u32;
        let buffered = (self.buffer << (available % 8)).to_be_bytes();
        let rest = self.data.get(self.at..).unwrap_or(&[]);
        let mut unused = rest.iter().rev().chain(buffered[..available as usize / 8].iter().rev());
        let padding = unused.by_ref().take_while(|&&byte| byte == 0 || byte == 0xFF).count();
        (rest.len() + available as usize / 8) - padding
    }
}
