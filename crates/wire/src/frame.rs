//! Frames: how messages keep their bounds, their order and their integrity on a byte stream.
//!
//! | bytes | field |
//! |---|---|
//! | 0..4   | magic `KTS1` |
//! | 4..8   | kind: the message's variant, so that a damaged frame can still be named |
//! | 8..12  | sequence number, from 0, one more each frame, wrapping |
//! | 12..16 | length of the payload, at most [`Framed::max_payload_bytes`] of its kind |
//! | 16..20 | CRC-32 (IEEE) of the payload |
//! | 20..24 | CRC-32 (IEEE) of bytes 0..20 |
//! | 24..   | payload |
//!
//! Integers are little-endian. The header has a checksum of its own because the reader must trust the
//! length before the payload has arrived. A frame that fails a checksum is reported, never parsed.

use crate::framed::Framed;
pub use crate::framed::MAX_PAYLOAD_BYTES;

/// Bytes of a frame before its payload.
pub const HEADER_BYTES: usize = 24;

const MAGIC: [u8; 4] = *b"KTS1";

/// What is wrong with a stretch of the stream. The reader goes on behind it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Bytes that belong to no frame.
    #[error("{bytes} bytes between frames belong to no frame")]
    Garbage {
        /// How many were passed over.
        bytes: usize,
    },
    /// The payload does not match its checksum.
    #[error("frame {sequence} ({kind}, {length} bytes) fails its checksum and was not read")]
    Checksum {
        /// Sequence number.
        sequence: u32,
        /// Name of the message's variant.
        kind: &'static str,
        /// Length of the payload.
        length: usize,
    },
    /// The payload matches its checksum but isn't a message: the two sides are of different builds.
    #[error(
        "frame {sequence} ({kind}) can't be read as a message: guest and host are not the same build"
    )]
    Payload {
        /// Sequence number.
        sequence: u32,
        /// Name of the message's variant.
        kind: &'static str,
    },
    /// Frames are missing.
    #[error("frames {expected} up to {found} are missing")]
    Gap {
        /// The number that should have come.
        expected: u32,
        /// The number that came.
        found: u32,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended with {bytes} bytes of an unfinished frame")]
    Truncated {
        /// How many bytes of it had arrived.
        bytes: usize,
    },
}

/// The message is too large for a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {kind} message of {length} bytes exceeds the limit of {limit} bytes for its kind")]
pub struct OversizeError {
    /// Name of the message's variant.
    pub kind: &'static str,
    /// Its encoded length.
    pub length: usize,
    /// Largest length of its kind.
    pub limit: usize,
}

/// Numbers messages and turns them into frames.
#[derive(Debug, Default)]
pub struct Encoder {
    next_sequence: u32,
}

impl Encoder {
    /// The frame of `message`. A remark and a chain of causes that are too long are cut.
    pub fn encode<M: Framed>(&mut self, message: &M) -> Result<Vec<u8>, OversizeError> {
        let message = &*message.shortened();
        let limit = M::max_payload_bytes(message.kind());
        let mut frame = vec![0; HEADER_BYTES];
        // Serialising into a vector fails only for types that postcard can't hold; ours it can.
        frame = postcard::to_extend(message, frame).unwrap_or_default();
        let length = frame.len().saturating_sub(HEADER_BYTES);
        let payload_length = match u32::try_from(length) {
            Ok(fits) if (1..=limit).contains(&length) => fits,
            _ => {
                return Err(OversizeError {
                    kind: M::name_of_kind(message.kind()),
                    length,
                    limit,
                });
            }
        };
        let payload_crc = crc32fast::hash(&frame[HEADER_BYTES..]);
        frame[0..4].copy_from_slice(&MAGIC);
        frame[4..8].copy_from_slice(&message.kind().to_le_bytes());
        frame[8..12].copy_from_slice(&self.next_sequence.to_le_bytes());
        frame[12..16].copy_from_slice(&payload_length.to_le_bytes());
        frame[16..20].copy_from_slice(&payload_crc.to_le_bytes());
        let header_crc = crc32fast::hash(&frame[..20]);
        frame[20..24].copy_from_slice(&header_crc.to_le_bytes());
        self.next_sequence = self.next_sequence.wrapping_add(1);
        Ok(frame)
    }
}

/// Finds frames in a stream that arrives in pieces of any size. Holds at most one frame's worth of bytes
/// beyond the piece that was pushed last.
#[derive(Debug)]
pub struct Decoder<M> {
    buffer: Vec<u8>,
    start: usize,
    garbage: usize,
    next_sequence: u32,
    held_back: Option<Result<M, FrameError>>,
}

struct Header {
    kind: u32,
    sequence: u32,
    length: usize,
    payload_crc: u32,
}

impl<M> Default for Decoder<M> {
    fn default() -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            garbage: 0,
            next_sequence: 0,
            held_back: None,
        }
    }
}

impl<M: Framed> Decoder<M> {
    /// Takes the next piece of the stream. Call [`Decoder::next`] until it returns `None` before the next
    /// piece, so that the buffer stays small.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, or what is wrong at this place; `None` until more bytes arrive.
    #[expect(
        clippy::should_implement_trait,
        reason = "not an iterator: it goes on after None"
    )]
    pub fn next(&mut self) -> Option<Result<M, FrameError>> {
        if let Some(held_back) = self.held_back.take() {
            return Some(held_back);
        }
        loop {
            let rest = &self.buffer[self.start..];
            if rest.len() < HEADER_BYTES {
                return None;
            }
            let Some(header) = Header::parse::<M>(rest) else {
                self.skip_to_next_magic();
                continue;
            };
            if self.garbage > 0 {
                let bytes = std::mem::take(&mut self.garbage);
                return Some(Err(FrameError::Garbage { bytes }));
            }
            let end = HEADER_BYTES + header.length;
            let payload = rest.get(HEADER_BYTES..end)?;
            let message = header.message::<M>(payload);
            self.start += end;
            return Some(self.in_order(&header, message));
        }
    }

    /// Call at the end of the stream: what was left over.
    pub fn finish(&mut self) -> Option<FrameError> {
        let bytes = self.garbage + self.buffer.len() - self.start;
        *self = Self::default();
        (bytes > 0).then_some(FrameError::Truncated { bytes })
    }

    /// Bytes held at present.
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    fn in_order(
        &mut self,
        header: &Header,
        message: Result<M, FrameError>,
    ) -> Result<M, FrameError> {
        let expected = std::mem::replace(&mut self.next_sequence, header.sequence.wrapping_add(1));
        if expected == header.sequence {
            return message;
        }
        self.held_back = Some(message);
        Err(FrameError::Gap {
            expected,
            found: header.sequence,
        })
    }

    fn skip_to_next_magic(&mut self) {
        let rest = &self.buffer[self.start..];
        let skip = (1..rest.len())
            .find(|&at| MAGIC.starts_with(&rest[at..rest.len().min(at + MAGIC.len())]))
            .unwrap_or(rest.len());
        self.start += skip;
        self.garbage += skip;
    }
}

impl Header {
    fn parse<M: Framed>(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| {
            let word = bytes.get(at..at + 4)?;
            Some(u32::from_le_bytes(word.try_into().ok()?))
        };
        let intact = bytes.starts_with(&MAGIC) && word(20)? == crc32fast::hash(&bytes[..20]);
        let kind = word(4)?;
        let length = usize::try_from(word(12)?).ok()?;
        (intact && length <= M::max_payload_bytes(kind)).then_some(Self {
            kind,
            sequence: word(8)?,
            length,
            payload_crc: word(16)?,
        })
    }

    fn message<M: Framed>(&self, payload: &[u8]) -> Result<M, FrameError> {
        let (sequence, kind) = (self.sequence, M::name_of_kind(self.kind));
        if crc32fast::hash(payload) != self.payload_crc {
            return Err(FrameError::Checksum {
                sequence,
                kind,
                length: self.length,
            });
        }
        let message = M::is_payload_of(self.kind, payload)
            .then(|| postcard::from_bytes::<M>(payload).ok())
            .flatten();
        message.ok_or(FrameError::Payload { sequence, kind })
    }
}
