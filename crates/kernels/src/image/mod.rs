//! What is inside a kernel image: from a bzImage to the vmlinux in it, and from a vmlinux to the facts
//! that a test needs.
//!
//! All of this reads bytes that a person handed us. Nothing here trusts a length or an offset, and what
//! is decompressed is bounded by [`MAX_VMLINUX_BYTES`].

mod bzimage;
mod lz4_legacy;
mod lzop;
mod payload;
mod release;
mod vmlinux;

pub use bzimage::BzImage;
pub use payload::{Format, decompress};
pub use vmlinux::{SectionRange, Vmlinux};

/// Most bytes that a kernel may decompress to. The largest distribution kernels are below 100 MiB; one
/// with debug information in it reaches several hundred.
pub const MAX_VMLINUX_BYTES: usize = 1 << 30;

/// Why bytes are not a kernel that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Neither a bzImage nor an ELF file.
    #[error("not a kernel image: {why}")]
    NotAKernel {
        /// What is missing or wrong, in words.
        why: String,
    },
    /// A kernel for another processor.
    #[error("a kernel for another architecture (ELF machine {machine}); this one needs x86-64")]
    OtherArchitecture {
        /// `e_machine` of the ELF header.
        machine: u16,
    },
    /// The boot protocol is too old to tell where the compressed kernel is.
    #[error(
        "a kernel image with boot protocol {major}.{minor:02}; 2.08 (Linux 2.6.26) or later is needed to \
         find the kernel in it"
    )]
    OldBootProtocol {
        /// High byte of the version field.
        major: u8,
        /// Low byte.
        minor: u8,
    },
    /// The file ends before what its header announces.
    #[error("a truncated kernel image: {what} ends at byte {end}, but there are only {len}")]
    Truncated {
        /// The part that doesn't fit.
        what: &'static str,
        /// Where it would end.
        end: u64,
        /// How many bytes there are.
        len: u64,
    },
    /// The compressed kernel starts with no known magic.
    #[error(
        "a kernel image whose payload is compressed in an unknown way (it starts with {magic:02x?})"
    )]
    UnknownCompression {
        /// Its first bytes.
        magic: Vec<u8>,
    },
    /// The payload is damaged.
    #[error("a damaged kernel image: its {format} payload does not decompress: {why}")]
    Payload {
        /// How it is compressed.
        format: Format,
        /// What the decoder said.
        why: String,
    },
    /// The payload would fill the memory.
    #[error(
        "the {format} payload decompresses to more than {limit_bytes} bytes, which no kernel does"
    )]
    TooLarge {
        /// How it is compressed.
        format: Format,
        /// The bound.
        limit_bytes: usize,
    },
}
