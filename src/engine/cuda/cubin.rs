//! What a compiled kernel needs, read from its cubin: an ELF file (ELF-64 specification) with notes
//! on each kernel.
//!
//! `.nv.info` holds attributes, of which 0x2f is the number of registers of a thread of a kernel,
//! by its symbol; and `.nv.shared.<kernel>` is as large as the static shared memory of a block.
//! Both as `cuobjdump -elf` and `-res-usage` of CUDA 13.0 show them.

/// What one kernel needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    pub kernel: String,
    /// Of a thread.
    pub registers: u32,
    /// Of a block, in bytes.
    pub shared: u64,
}

/// Attribute of `.nv.info` with a kernel's number of registers.
const REGISTERS: u64 = 0x2f;

/// Format of an attribute whose value follows, its size given.
const SIZED: u64 = 4;

struct Section<'a> {
    name: &'a str,
    bytes: &'a [u8],
    /// Also of sections that take no room in the file.
    size: u64,
}

/// What the kernels in a cubin need; `None` if it is damaged.
pub fn needs(cubin: &[u8]) -> Option<Vec<Needs>> {
    let sections = sections(cubin)?;
    let named = |name: &str| sections.iter().find(|s| s.name == name);
    let (symbols, names) = (named(".symtab")?.bytes, named(".strtab")?.bytes);
    let attributes = named(".nv.info")?.bytes;
    let mut needs = vec![];
    let mut at = 0;
    while at < attributes.len() {
        let (format, attribute) = (word(attributes, at, 1)?, word(attributes, at + 1, 1)?);
        let size = if format == SIZED { usize::try_from(word(attributes, at + 2, 2)?).ok()? } else { 0 };
        if format == SIZED && attribute == REGISTERS {
            let symbol = usize::try_from(word(attributes, at + 4, 4)?).ok()?;
            let name = usize::try_from(word(symbols, symbol.checked_mul(24)?, 4)?).ok()?;
            let kernel = text(names, name)?;
            let shared = named(&format!(".nv.shared.{kernel}")).map_or(0, |s| s.size);
            let registers = u32::try_from(word(attributes, at + 8, 4)?).ok()?;
            needs.push(Needs { kernel: kernel.into(), registers, shared });
        }
        at += 4 + size;
    }
    Some(needs)
}

fn sections(file: &[u8]) -> Option<Vec<Section<'_>>> {
    const NO_BITS: u64 = 8;
    if file.get(..4)? != b"\x7fELF" {
        return None;
    }
    let (table, count, names) = (word(file, 0x28, 8)?, word(file, 0x3c, 2)?, word(file, 0x3e, 2)?);
    let header = |i: u64| {
        let at = usize::try_from(table.checked_add(64 * i)?).ok()?;
        file.get(at..at.checked_add(64)?)
    };
    let start = |header: &[u8]| usize::try_from(word(header, 0x18, 8)?).ok();
    let names = file.get(start(header(names)?)?..)?;
    let section = |i: u64| {
        let header = header(i)?;
        let (kind, size) = (word(header, 4, 4)?, word(header, 0x20, 8)?);
        let bytes = if kind == NO_BITS { 0 } else { usize::try_from(size).ok()? };
        let start = if bytes == 0 { 0 } else { start(header)? };
        let bytes = file.get(start..start.checked_add(bytes)?)?;
        Some(Section { name: text(names, usize::try_from(word(header, 0, 4)?).ok()?)?, bytes, size })
    };
    (0..count).map(section).collect()
}

/// The text that begins at a place of a table of texts.
fn text(table: &[u8], at: usize) -> Option<&str> {
    std::str::from_utf8(table.get(at..)?.split(|&b| b == 0).next()?).ok()
}

/// A little-endian number of `bytes` bytes.
fn word(from: &[u8], at: usize, bytes: usize) -> Option<u64> {
    Some(from.get(at..at.checked_add(bytes)?)?.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_cubins_need_nothing_and_do_no_harm() {
        assert_eq!(needs(b""), None);
        assert_eq!(needs(b"\x7fELF"), None);
        let mut wild = vec![0xff; 200];
        wild[..4].copy_from_slice(b"\x7fELF");
        assert_eq!(needs(&wild), None);
    }
}
