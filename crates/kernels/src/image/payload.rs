//! The compressed part of a boot image, in each of the formats that the kernel's build can choose
//! (`CONFIG_KERNEL_GZIP` and its siblings in init/Kconfig).

use std::fmt;
use std::io::Read;

use super::{lz4_legacy, lzop};

/// Why bytes can't be decompressed. Whether they are a kernel or a module is the caller's to say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecompressError {
    /// They start with no known magic.
    #[error("compressed in an unknown way (it starts with {magic:02x?})")]
    UnknownFormat {
        /// The first bytes.
        magic: Vec<u8>,
    },
    /// They are damaged, or cut.
    #[error("its {format} data does not decompress: {why}")]
    Damaged {
        /// How they are compressed.
        format: Format,
        /// What the decoder said.
        why: String,
    },
    /// They would fill the memory.
    #[error("its {format} data decompresses to more than {limit_bytes} bytes")]
    TooLarge {
        /// How they are compressed.
        format: Format,
        limit_bytes: usize,
    },
}

/// How a payload is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `CONFIG_KERNEL_GZIP`.
    Gzip,
    /// `CONFIG_KERNEL_BZIP2`.
    Bzip2,
    /// `CONFIG_KERNEL_LZMA`: the format of the old lzma tool.
    Lzma,
    /// `CONFIG_KERNEL_XZ`.
    Xz,
    /// `CONFIG_KERNEL_LZO`: the format of lzop.
    Lzo,
    /// `CONFIG_KERNEL_LZ4`: the legacy frame of the lz4 tool.
    Lz4,
    /// `CONFIG_KERNEL_ZSTD`.
    Zstd,
    /// `CONFIG_KERNEL_UNCOMPRESSED`: an ELF file as it is.
    Uncompressed,
}

/// Magic numbers, the same ones as in lib/decompress.c (and, for zstd, ELF and lzma, in full).
const MAGICS: [(&[u8], Format); 8] = [
    (&[0x1f, 0x8b], Format::Gzip),
    (b"BZh", Format::Bzip2),
    (&[0x5d, 0x00, 0x00], Format::Lzma),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0x00], Format::Xz),
    (&lzop::MAGIC, Format::Lzo),
    (&lz4_legacy::MAGIC, Format::Lz4),
    (&[0x28, 0xb5, 0x2f, 0xfd], Format::Zstd),
    (b"\x7fELF", Format::Uncompressed),
];

impl Format {
    /// Tells the format by the first bytes.
    pub fn detect(bytes: &[u8]) -> Option<Self> {
        MAGICS
            .iter()
            .find(|(magic, _)| bytes.starts_with(magic))
            .map(|&(_, format)| format)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "lzma",
            Self::Xz => "xz",
            Self::Lzo => "lzo",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::Uncompressed => "uncompressed",
        })
    }
}

/// Memory that an lzma or xz decoder may take: the largest dictionary that `xz -9` uses, and room.
pub(crate) const LZMA_MEMORY_BYTES: u64 = 256 << 20;

/// Decompresses one payload to at most `limit_bytes`. Whatever follows the compressed stream is left
/// alone: the kernel's build appends the uncompressed size to most formats (`size_append` in
/// scripts/Makefile.lib).
pub fn decompress(payload: &[u8], limit_bytes: usize) -> Result<Vec<u8>, DecompressError> {
    let Some(format) = Format::detect(payload) else {
        return Err(DecompressError::UnknownFormat {
            magic: payload.iter().take(8).copied().collect(),
        });
    };
    match decode(format, payload, limit_bytes) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(DecompressError::TooLarge {
            format,
            limit_bytes,
        }),
        Err(why) => Err(DecompressError::Damaged { format, why }),
    }
}

/// The decompressed bytes, or nothing when there are more than `limit_bytes`.
fn decode(format: Format, payload: &[u8], limit_bytes: usize) -> Result<Option<Vec<u8>>, String> {
    match format {
        Format::Gzip => drain(flate2::bufread::GzDecoder::new(payload), limit_bytes),
        Format::Bzip2 => drain(bzip2::bufread::BzDecoder::new(payload), limit_bytes),
        Format::Lzma => {
            let stream = liblzma::stream::Stream::new_lzma_decoder(LZMA_MEMORY_BYTES)
                .map_err(|e| e.to_string())?;
            drain(
                liblzma::bufread::XzDecoder::new_stream(payload, stream),
                limit_bytes,
            )
        }
        Format::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(LZMA_MEMORY_BYTES, 0)
                .map_err(|e| e.to_string())?;
            drain(
                liblzma::bufread::XzDecoder::new_stream(payload, stream),
                limit_bytes,
            )
        }
        Format::Lzo => lzop::decompress(payload, limit_bytes).map_err(|e| e.to_string()),
        Format::Lz4 => lz4_legacy::decompress(payload, limit_bytes).map_err(|e| e.to_string()),
        Format::Zstd => {
            let decoder =
                zstd::stream::read::Decoder::with_buffer(payload).map_err(|e| e.to_string())?;
            drain(decoder.single_frame(), limit_bytes)
        }
        Format::Uncompressed => Ok((payload.len() <= limit_bytes).then(|| payload.to_vec())),
    }
}

fn drain(decoder: impl Read, limit_bytes: usize) -> Result<Option<Vec<u8>>, String> {
    let mut bytes = Vec::new();
    let bound = limit_bytes as u64 + 1;
    decoder
        .take(bound)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    Ok((bytes.len() <= limit_bytes).then_some(bytes))
}
