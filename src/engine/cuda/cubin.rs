//! What a compiled kernel needs, read from its cubin: an ELF file with a section of code for each kernel.
//!
//! The high byte of such a section's `sh_info` is the number of registers of a thread (binutils for CUDA print it as
//! such), and `.nv.shared.<kernel>` is as large as the static shared memory of a block. Offsets follow the ELF-64
//! specification.

/// What one kernel needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    pub kernel: String,
    /// Of a thread.
    pub registers: u32,
    /// Of a block, in bytes.
    pub shared: u64,
}

/// What the kernels in a cubin need; none where it is damaged.
pub fn needs(cubin: &[u8]) -> Option<Vec<Needs>> {
    if cubin.get(..4)? != b"\x7fELF" {
        return None;
    }
    let (table, count, names) = (word(cubin, 0x28, 8)?, word(cubin, 0x3c, 2)?, word(cubin, 0x3e, 2)?);
    let header = |i: u64| usize::try_from(table.checked_add(64 * i)?).ok();
    let names = word(cubin, header(names)?.checked_add(0x18)?, 8)?;
    let mut sections = vec![];
    for i in 0..count {
        let at = header(i)?;
        at.checked_add(64)?;
        let start = usize::try_from(names.checked_add(word(cubin, at, 4)?)?).ok()?;
        let name = cubin.get(start..)?.split(|&b| b == 0).next()?;
        let (size, info) = (word(cubin, at + 0x20, 8)?, word(cubin, at + 0x2c, 4)?);
        sections.push((std::str::from_utf8(name).ok()?, size, info));
    }
    let shared = |kernel: &str| {
        let of = |&&(name, ..): &&(&str, u64, u64)| name.strip_prefix(".nv.shared.") == Some(kernel);
        sections.iter().find(of).map_or(0, |s| s.1)
    };
    let code = sections.iter().filter_map(|&(name, _, info)| Some((name.strip_prefix(".text.")?, info)));
    let of = |(kernel, info): (&str, u64)| Needs {
        kernel: kernel.into(),
        registers: (info >> 24) as u32,
        shared: shared(kernel),
    };
    Some(code.map(of).collect())
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
