//! The legacy frame of the lz4 tool: a magic, then blocks of at most 8 MiB, each behind its size.
//!
//! Source: doc/lz4_Frame_format.md in lz4, "Legacy frame"; lib/decompress_unlz4.c in the kernel.

/// 0x184C2102, little-endian.
pub(super) const MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// Most bytes that one block decompresses to.
const BLOCK_BYTES: usize = 8 << 20;

/// What is wrong with a frame.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lz4Error {
    #[error("block {index} is truncated")]
    Truncated { index: usize },
    #[error("block {index}: {source}")]
    Block {
        index: usize,
        source: lz4_flex::block::DecompressError,
    },
}

/// The decompressed bytes, or nothing when there are more than `limit_bytes`.
pub(super) fn decompress(payload: &[u8], limit_bytes: usize) -> Result<Option<Vec<u8>>, Lz4Error> {
    let mut rest = payload.strip_prefix(&MAGIC).unwrap_or(payload);
    let mut out = Vec::new();
    let mut block = vec![0; BLOCK_BYTES];
    for index in 0.. {
        let Some((size, after)) = rest.split_first_chunk() else {
            break;
        };
        let Some(data) = usize::try_from(u32::from_le_bytes(*size))
            .ok()
            .and_then(|size| after.get(..size))
        else {
            // The kernel's build appends the uncompressed size, which reads like the size of one more
            // block with nothing behind it.
            if after.is_empty() && index > 0 {
                break;
            }
            return Err(Lz4Error::Truncated { index });
        };
        let len = lz4_flex::block::decompress_into(data, &mut block)
            .map_err(|source| Lz4Error::Block { index, source })?;
        if out.len() + len > limit_bytes {
            return Ok(None);
        }
        out.extend_from_slice(&block[..len]);
        rest = &after[data.len()..];
    }
    Ok(Some(out))
}
