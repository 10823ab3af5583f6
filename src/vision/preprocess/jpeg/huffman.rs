//! A Huffman table as it is looked up (ITU-T T.81, annex C and F.2.2.3).

use super::JpegFault;

/// Codes up to this length are looked up at once; few are longer.
const LOOKUP_BITS: u32 = 9;

/// Longest code.
const MAX_BITS: usize = 16;

/// One table.
#[derive(Clone)]
pub struct HuffmanTable {
    /// By the next bits: length and symbol of the code that they begin with; length 0 of a longer one.
    lookup: [(u8, u8); 1 << LOOKUP_BITS],
    /// Of each length, the first number above its codes, aligned to 16 bits.
    limits: [u32; MAX_BITS + 1],
    /// Of each length, what turns a code into the place of its symbol.
    offsets: [i32; MAX_BITS + 1],
    symbols: [u8; 256],
}

impl HuffmanTable {
    /// Builds the table of so many codes of each length, 1 to 16, and their symbols in order.
    pub fn new(counts: &[u8; MAX_BITS], symbols: &[u8]) -> Result<Self, JpegFault> {
        let fault = JpegFault::Header("Huffman table (DHT)");
        let mut table = Self {
            lookup: [(0, 0); 1 << LOOKUP_BITS],
            limits: [0; MAX_BITS + 1],
            offsets: [0; MAX_BITS + 1],
            symbols: [0; 256],
        };
        table.symbols.get_mut(..symbols.len()).ok_or(fault)?.copy_from_slice(symbols);
        let (mut code, mut place) = (0u32, 0usize);
        for (length, &count) in (1u32..).zip(counts) {
            table.offsets[length as usize] = place as i32 - code as i32;
            for _ in 0..count {
                if code >> length != 0 {
                    return Err(fault);
                }
                if length <= LOOKUP_BITS {
                    let first = (code << (LOOKUP_BITS - length)) as usize;
                    let entry = (length as u8, table.symbols[place & 255]);
                    table.lookup[first..first + (1 << (LOOKUP_BITS - length))].fill(entry);
                }
                code += 1;
                place += 1;
            }
            table.limits[length as usize] = code << (MAX_BITS as u32 - length);
            code <<= 1;
        }
        Ok(table)
    }

    /// Length and symbol of the code that the upper 16 of 32 bits begin with; `None` if none does.
    #[inline(always)]
    pub fn find(&self, bits: u32) -> Option<(u32, u8)> {
        let (length, symbol) = self.lookup[(bits >> (32 - LOOKUP_BITS)) as usize];
        if length > 0 {
            return Some((u32::from(length), symbol));
        }
        self.find_long(bits >> 16)
    }

    #[cold]
    fn find_long(&self, bits: u32) -> Option<(u32, u8)> {
        let length = (LOOKUP_BITS as usize + 1..=MAX_BITS).find(|&length| bits < self.limits[length])?;
        let place = (bits >> (MAX_BITS - length)) as i32 + self.offsets[length];
        Some((length as u32, *self.symbols.get(usize::try_from(place).ok()?)?))
    }
}
