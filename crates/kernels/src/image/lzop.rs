//! The lzop container, as `CONFIG_KERNEL_LZO` and lzop write it.
//!
//! Source: lib/decompress_unlzo.c in the kernel, and lzop's own flags.

pub(super) const MAGIC: [u8; 9] = [0x89, b'L', b'Z', b'O', 0x00, 0x0d, 0x0a, 0x1a, 0x0a];

/// First version whose header has a compression level and the high half of the time.
const VERSION_WITH_LEVEL: u16 = 0x0940;
const HAS_FILTER: u32 = 0x0800;
/// A checksum over each block's data, before compression: Adler-32 or CRC-32.
const DATA_CHECKSUMS: [u32; 2] = [0x0001, 0x0100];
/// The same over the compressed bytes; left out for a block that is stored as it is.
const COMPRESSED_CHECKSUMS: [u32; 2] = [0x0002, 0x0200];
/// lzop's largest block.
const MAX_BLOCK_BYTES: usize = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub(super) enum LzopError {
    #[error("it ends inside {0}")]
    Truncated(&'static str),
    #[error("block {index} announces {bytes} bytes, more than lzop ever writes")]
    BlockTooLarge { index: usize, bytes: usize },
    #[error("block {index}: {source}")]
    Block { index: usize, source: lzokay::Error },
    #[error("block {index} decompressed to {got} bytes, not the {expected} it announces")]
    Length {
        index: usize,
        got: usize,
        expected: usize,
    },
}

/// Walks through bytes, big-endian, never past the end.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], LzopError> {
        let (head, tail) = self
            .0
            .split_at_checked(count)
            .ok_or(LzopError::Truncated(what))?;
        self.0 = tail;
        Ok(head)
    }

    fn number(&mut self, bytes: usize, what: &'static str) -> Result<u32, LzopError> {
        Ok(self
            .take(bytes, what)?
            .iter()
            .fold(0, |n, &byte| (n << 8) | u32::from(byte)))
    }
}

/// The decompressed bytes, or nothing when there are more than `limit_bytes`.
pub(super) fn decompress(payload: &[u8], limit_bytes: usize) -> Result<Option<Vec<u8>>, LzopError> {
    let mut cursor = Cursor(payload);
    let flags = header(&mut cursor)?;
    let count = |masks: [u32; 2]| masks.iter().filter(|&&mask| flags & mask != 0).count() * 4;
    let (data_checksum_bytes, compressed_checksum_bytes) =
        (count(DATA_CHECKSUMS), count(COMPRESSED_CHECKSUMS));
    let mut out = Vec::new();
    for index in 0.. {
        let expected = length(cursor.number(4, "a block header")?, index)?;
        if expected == 0 {
            break;
        }
        let stored = length(cursor.number(4, "a block header")?, index)?;
        cursor.take(data_checksum_bytes, "a block header")?;
        if stored < expected {
            cursor.take(compressed_checksum_bytes, "a block header")?;
        }
        let data = cursor.take(stored, "a block")?;
        let start = out.len();
        if start + expected > limit_bytes {
            return Ok(None);
        }
        if stored >= expected {
            out.extend_from_slice(&data[..expected]);
            continue;
        }
        out.resize(start + expected, 0);
        let got = lzokay::decompress::decompress(data, &mut out[start..])
            .map_err(|source| LzopError::Block { index, source })?;
        if got != expected {
            return Err(LzopError::Length {
                index,
                got,
                expected,
            });
        }
    }
    Ok(Some(out))
}

fn length(bytes: u32, index: usize) -> Result<usize, LzopError> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    if bytes > MAX_BLOCK_BYTES {
        return Err(LzopError::BlockTooLarge { index, bytes });
    }
    Ok(bytes)
}

/// Skips the header and returns its flags.
fn header(cursor: &mut Cursor<'_>) -> Result<u32, LzopError> {
    const WHAT: &str = "its header";
    cursor.take(MAGIC.len(), WHAT)?;
    let version = cursor.number(2, WHAT)?;
    let with_level = version >= u32::from(VERSION_WITH_LEVEL);
    // Library version, version needed to extract, method.
    cursor.take(2 + 2 + 1, WHAT)?;
    cursor.take(usize::from(with_level), WHAT)?;
    let flags = cursor.number(4, WHAT)?;
    if flags & HAS_FILTER != 0 {
        cursor.take(4, WHAT)?;
    }
    // Mode and the low half of the time, then the high half.
    cursor.take(4 + 4, WHAT)?;
    if with_level {
        cursor.take(4, WHAT)?;
    }
    let name_bytes = cursor.number(1, WHAT)?;
    // The name, then the header's checksum.
    cursor.take(usize::try_from(name_bytes).unwrap_or(0) + 4, WHAT)?;
    Ok(flags)
}
