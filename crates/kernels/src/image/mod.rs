//! What is inside a kernel image: from a bzImage to the vmlinux in it, and from a vmlinux to the facts
//! that a test needs.
//!
//! All of this reads bytes that a person handed us. Nothing here trusts a length or an offset, and what
//! is decompressed is bounded by [`MAX_VMLINUX_BYTES`].

mod bzimage;
mod foreign;
mod lz4_legacy;
mod lzop;
mod payload;
mod release;
mod vmlinux;

pub use bzimage::BzImage;
pub use foreign::identify;
pub(crate) use payload::LZMA_MEMORY_BYTES;
pub use payload::{DecompressError, Format, decompress};
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
    /// A kernel for another processor, or in a format that x86 kernels don't have.
    #[error("{what}; machines here are x86-64 and boot a bzImage or a vmlinux")]
    Foreign {
        /// What it is, in words.
        what: String,
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
    /// The compressed kernel does not decompress.
    #[error("a kernel image that can't be unpacked: {0}")]
    Payload(#[from] DecompressError),
}
