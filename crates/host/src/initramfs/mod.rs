//! What the guest's memory holds when its kernel starts.
//!
//! One archive, the *base*, with the running binary as `/init`, its libraries, kernel modules and included files. It is
//! the same for all tests of a binary, and cached on disk: what differs from test to test travels on the link.

mod archive;
mod base_cache;
mod elf;
mod libraries;
mod listing;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use archive::ArchiveError;
pub use base_cache::BaseCache;
pub(crate) use base_cache::Kept;
pub use elf::ElfError;
pub use libraries::{LibraryError, OWN_BINARY};

use listing::Listing;

/// Folders that the guest mounts on, and that programs expect.
const FOLDERS: [&str; 9] = [
    "/dev", "/etc", "/ktstr", "/lib64", "/proc", "/root", "/run", "/sys", "/tmp",
];

/// The running binary in the guest.
const INIT: &str = "/init";

/// The initramfs can't be packed.
#[derive(Debug, thiserror::Error)]
pub enum InitramfsError {
    /// A file can't be read.
    #[error("reading {what} {path}")]
    Read {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A kernel module can't be read.
    #[error("reading the kernel module {name}")]
    Module {
        /// The module.
        name: String,
        /// The cause.
        source: ktstr_kernels::ModuleError,
    },
    /// Two files are to be at one place.
    #[error(
        "{one} and {other} can't both be at {guest} in the guest: give one of them another path"
    )]
    SamePlace {
        /// The path in the guest.
        guest: String,
        /// One file of the host.
        one: PathBuf,
        /// The other.
        other: PathBuf,
    },
    /// A library is missing or unreadable.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// A program isn't one.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// A path or file doesn't fit the format.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

/// A file of the host to have in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Include {
    /// Where it is.
    pub host: PathBuf,
    /// Its path in the guest, absolute.
    pub guest: String,
}

/// What goes into the base part.
#[derive(Clone, Debug)]
pub struct BaseContents {
    /// The binary that becomes `/init`, such as [`OWN_BINARY`].
    pub init: PathBuf,
    /// Programs that are part of the test, without their debug sections.
    pub programs: Vec<Include>,
    /// Further files as they are; programs among them bring their libraries along.
    pub includes: Vec<Include>,
    /// Modules, in load order.
    pub modules: Vec<ktstr_kernels::ModuleFile>,
    /// `LD_LIBRARY_PATH` to honour when looking for libraries.
    pub library_path: Option<String>,
}

/// The base part, packed.
#[derive(Debug)]
pub struct Base {
    /// The archive.
    pub archive: Vec<u8>,
    /// Value of `LD_LIBRARY_PATH` that the guest needs, if any.
    pub library_path: Option<String>,
}

impl BaseContents {
    /// The list of modules, as the guest reads it.
    fn module_list(&self) -> String {
        let names = self.modules.iter().map(|module| module.name.as_str());
        names.flat_map(|name| [name, "\n"]).collect()
    }

    /// Packs everything.
    pub fn pack(&self) -> Result<Base, InitramfsError> {
        let listing = Listing::of(self)?;
        let (_, archive) = listing.pack()?;
        Ok(Base {
            archive,
            library_path: listing.library_path,
        })
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, InitramfsError> {
    fs::read(path).map_err(|source| InitramfsError::Read {
        what,
        path: path.to_owned(),
        source,
    })
}
