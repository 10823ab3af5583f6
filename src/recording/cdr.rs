//! CDR, the encoding of ROS 2 messages (OMG DDSI-RTPS 2.5, section 10), read within bounds: no
//! length that a message claims is believed before its bytes are there.

/// Why a message cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CdrError {
    /// It is shorter than its own lengths ask for.
    #[error("the message ends early: {wanted} bytes are asked for at byte {at} of {length}")]
    Short {
        /// Byte after the four of the header.
        at: usize,
        /// Bytes asked for there.
        wanted: usize,
        /// Bytes after the header.
        length: usize,
    },
    /// It is not plain CDR.
    #[error("the message is no plain CDR (it begins with {0:02x?})")]
    Representation([u8; 2]),
}

/// A message, and how far it has been read.
pub struct Cdr<'a> {
    /// Without the four bytes of the header, from which alignment counts.
    body: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Cdr<'a> {
    /// Begins to read `message`, little- or big-endian as its header says.
    pub fn new(message: &'a [u8]) -> Result<Self, CdrError> {
        let Some((&[first, second, _, _], body)) = message.split_first_chunk() else {
            return Err(CdrError::Short { at: 0, wanted: 4, length: message.len() });
        };
        let big_endian = match (first, second) {
            (0, 0) => true,
            (0, 1) => false,
            _ => return Err(CdrError::Representation([first, second])),
        };
        Ok(Self { body, at: 0, big_endian })
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], CdrError> {
        let short = CdrError::Short { at: self.at, wanted: bytes, length: self.body.len() };
        let end = self.at.checked_add(bytes).ok_or(short)?;
        let taken = self.body.get(self.at..end).ok_or(short)?;
        self.at = end;
        Ok(taken)
    }

    pub fn u8(&mut self) -> Result<u8, CdrError> {
        Ok(self.take(1)?[0])
    }

    pub fn u32(&mut self) -> Result<u32, CdrError> {
        self.at = self.at.next_multiple_of(4);
        let bytes = self.take(4)?.try_into().expect("four");
        Ok(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    pub fn i32(&mut self) -> Result<i32, CdrError> {
        self.u32().map(|bits| bits as i32)
    }

    /// A sequence of bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], CdrError> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    /// A string, without the zero byte that ends it.
    pub fn text(&mut self) -> Result<&'a [u8], CdrError> {
        let text = self.bytes()?;
        Ok(text.strip_suffix(&[0]).unwrap_or(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_aligned_from_the_end_of_the_header() {
        let message = [0, 1, 0, 0, 7, 0, 0, 0, 2, 1, 0, 0, 3, 0, 0, 0, b'a', b'b', 0];
        let mut cdr = Cdr::new(&message).unwrap();
        assert_eq!((cdr.u8(), cdr.u32(), cdr.text()), (Ok(7), Ok(258), Ok(&b"ab"[..])));
        let big = [0, 0, 0, 0, 0, 0, 1, 2];
        assert_eq!(Cdr::new(&big).unwrap().u32(), Ok(258));
    }

    #[test]
    fn a_length_beyond_the_message_is_refused() {
        let message = [0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(Cdr::new(&message).unwrap().bytes(), Err(CdrError::Short { at: 4, wanted: 0xffff_ffff, length: 5 }));
        assert!(matches!(Cdr::new(&message[..3]), Err(CdrError::Short { .. })));
        assert!(matches!(Cdr::new(&[0, 3, 0, 0]), Err(CdrError::Representation([0, 3]))));
    }
}
