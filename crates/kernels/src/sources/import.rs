//! The last step of every source: from a boot image or an ELF file to a complete cache entry.

use std::path::{Path, PathBuf};

use super::regular::{self, FileError};
use crate::cache::{
    CONFIG_FILE, CacheError, Entry, Facts, Origin, Partial, VMLINUX_FILE, VMLINUZ_FILE,
};
use crate::image::{self, BzImage, ImageError, MAX_VMLINUX_BYTES, Vmlinux};
use crate::progress::{Event, Progress};

/// Why a file can't become a kernel in the cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file isn't a kernel, or not one for this machine.
    #[error("{} is {source}", path.display())]
    Image { path: PathBuf, source: ImageError },
    /// The kernel doesn't say which it is.
    #[error("{} is a kernel image that doesn't say its release", path.display())]
    NoRelease { path: PathBuf },
    /// The file can't be read, or isn't one.
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// A kernel image in memory.
pub(crate) struct ImageFile {
    /// The user's name for it, for messages.
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

impl ImageFile {
    pub(crate) fn read(path: &Path) -> Result<Self, ImportError> {
        let bytes = regular::read(path, MAX_VMLINUX_BYTES as u64, "a kernel image")?;
        Ok(Self {
            path: path.to_owned(),
            bytes,
        })
    }

    fn error(&self, source: ImageError) -> ImportError {
        ImportError::Image {
            path: self.path.clone(),
            source,
        }
    }

    /// The release, without decompressing a boot image where its header has it.
    pub(crate) fn release(&self) -> Result<String, ImportError> {
        if BzImage::is(&self.bytes) {
            let image = BzImage::parse(&self.bytes).map_err(|e| self.error(e))?;
            if let Some(release) = image.release() {
                return Ok(release.to_owned());
            }
        }
        let elf = self.elf()?;
        let vmlinux = Vmlinux::parse(&elf).map_err(|e| self.error(e))?;
        vmlinux
            .release()
            .map(str::to_owned)
            .ok_or_else(|| ImportError::NoRelease {
                path: self.path.clone(),
            })
    }

    /// The ELF file: what is in the boot image, or the file itself.
    fn elf(&self) -> Result<std::borrow::Cow<'_, [u8]>, ImportError> {
        if BzImage::is(&self.bytes) {
            let image = BzImage::parse(&self.bytes).map_err(|e| self.error(e))?;
            return image::decompress(image.payload(), MAX_VMLINUX_BYTES)
                .map(Into::into)
                .map_err(|e| self.error(e.into()));
        }
        if self.bytes.starts_with(b"\x7fELF") {
            return Ok((&*self.bytes).into());
        }
        Err(self.error(match image::identify(&self.bytes) {
            Some(what) => ImageError::Foreign { what },
            None => ImageError::NotAKernel {
                why: "it has neither an x86 boot header nor an ELF header".to_owned(),
            },
        }))
    }
}

/// Where a kernel came from, as the entry will tell it.
pub(crate) struct Provenance {
    pub(crate) source: String,
    pub(crate) origin: Origin,
}

/// Writes image, ELF file and config into a partial entry (modules are there already) and commits it.
pub(crate) fn import(
    partial: Partial<'_>,
    image: &ImageFile,
    config: Option<Vec<u8>>,
    provenance: Provenance,
    progress: &dyn Progress,
) -> Result<Entry, ImportError> {
    progress.event(&Event::Unpack {
        name: image.path.display().to_string(),
    });
    let release = image.release()?;
    let elf = image.elf()?;
    let vmlinux = Vmlinux::parse(&elf).map_err(|e| image.error(e))?;
    if BzImage::is(&image.bytes) {
        partial.write(VMLINUZ_FILE, &image.bytes)?;
    }
    partial.write(VMLINUX_FILE, &elf)?;
    if let Some(config) = config.or_else(|| vmlinux.config().map(String::into_bytes)) {
        partial.write(CONFIG_FILE, &config)?;
    }
    let facts = Facts {
        release,
        source: provenance.source,
        origin: provenance.origin,
        btf: vmlinux.btf(),
        pvh_entry: vmlinux.pvh_entry(),
    };
    Ok(partial.commit(facts)?)
}
