//! The kernel's image: what is known of a kernel before it runs.

use crate::btf::{Btf, BtfError};
use crate::bytes;
use crate::symbols::{SymbolError, Symbols, VmlinuxError, section};

/// A kernel as its ELF file describes it.
#[derive(Clone, Debug)]
pub struct KernelImage {
    /// Its types.
    pub btf: Btf,
    /// Its symbols, at the addresses that they are linked at.
    pub symbols: Symbols,
    /// The text of `linux_banner`, by which the kernel is known in memory: release, builder, compiler, date.
    pub banner: String,
}

/// Why an ELF file does not describe a kernel.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    #[error(transparent)]
    Vmlinux(#[from] VmlinuxError),
    /// Its type information can't be read.
    #[error("the kernel's type information can't be used")]
    Btf(#[from] BtfError),
    /// It has no symbols.
    #[error(transparent)]
    Symbols(#[from] SymbolError),
    /// There is nothing to know it by.
    #[error("the kernel's image has no `linux_banner` in its read-only data")]
    NoBanner,
}

impl KernelImage {
    /// Reads a vmlinux.
    pub fn from_vmlinux(vmlinux: &[u8]) -> Result<Self, ImageError> {
        let symbols = Symbols::from_vmlinux(vmlinux)?;
        let (start, rodata) = section(vmlinux, ".rodata")?;
        let banner = symbols
            .find("linux_banner")
            .and_then(|address| usize::try_from(address.checked_sub(start)?).ok())
            .and_then(|at| rodata.get(at..))
            .map(bytes::text)
            .filter(|banner| banner.starts_with("Linux version"))
            .ok_or(ImageError::NoBanner)?;
        Ok(Self {
            btf: Btf::parse(section(vmlinux, ".BTF")?.1)?,
            symbols,
            banner,
        })
    }
}
