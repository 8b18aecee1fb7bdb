//! A kernel that the user has: a bzImage, a vmlinux, Debian packages, or a folder with an image and modules.

mod folder;
mod image;
mod parts;
mod store;
mod tree;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::deb::DebError;
use super::import::ImportError;
use super::regular::FileError;
use crate::cache::{Cache, CacheError, Entry};
use crate::progress::{Event, Progress};
use parts::Found;

/// Why a path is not a kernel that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// It can't be looked at.
    #[error("can't read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// It is a kernel's source tree without an image.
    #[error(
        "{} is a kernel source tree that is not built, and building kernels is not supported yet: build it there \
         (make bzImage modules)",
        path.display()
    )]
    NotBuilt { path: PathBuf },
    /// The folder has no kernel.
    #[error("{} has no kernel in it: no vmlinuz, vmlinuz-RELEASE, bzImage, vmlinux or linux-*.deb", path.display())]
    NoImage { path: PathBuf },
    /// The folder has several.
    #[error(
        "{} has several kernels in it; give the path of one: {}",
        path.display(),
        names.join(", ")
    )]
    Several {
        path: PathBuf,
        /// Their file names.
        names: Vec<String>,
    },
    /// The packages have no kernel image.
    #[error(
        "{} has no kernel image in it. Newer Debian kernels are split: linux-binary-* has the image, \
         linux-modules-* the modules; put all of them in one folder and give that",
        path.display()
    )]
    NoImageInPackage {
        /// The package, or the folder of packages.
        path: PathBuf,
    },
    /// A file is being written while it is read.
    #[error("{} changed while it was read; try again when what writes it has ended", path.display())]
    Changed { path: PathBuf },
    /// A file can't be read, or isn't one.
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Deb(#[from] DebError),
    /// The kernel can't be used.
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// A kind of path that names a kernel: what it has, or nothing if the path is of another kind.
type Kind = fn(&Path) -> Result<Option<Found>, PathError>;

/// Every kind, the first that fits is taken. Each has a file of its own.
const KINDS: [Kind; 4] = [tree::look, package, folder::look, image::look];

/// Imports the kernel at `path`, or finds it in the cache when it was imported before.
pub(crate) fn fetch(
    cache: &Cache,
    path: &Path,
    progress: &dyn Progress,
) -> Result<Entry, PathError> {
    let path = std::path::absolute(path).map_err(|source| read_error(path, source))?;
    let entry = match look(&path)? {
        Found::Image(parts) => {
            if let Some(text) = &parts.announcement {
                progress.event(&Event::Note(text.clone()));
            }
            if let Some(text) = parts.warning() {
                progress.event(&Event::Warning(text));
            }
            store::parts(cache, &path, &parts, progress)
        }
        Found::Packages(debs) => store::packages(cache, &path, &debs, progress),
    }?;
    entry.mark_used();
    Ok(entry)
}

fn read_error(path: &Path, source: io::Error) -> PathError {
    PathError::Read {
        path: path.to_owned(),
        source,
    }
}

fn look(path: &Path) -> Result<Found, PathError> {
    fs::metadata(path).map_err(|source| read_error(path, source))?;
    for kind in KINDS {
        if let Some(found) = kind(path)? {
            return Ok(found);
        }
    }
    Err(PathError::NoImage {
        path: path.to_owned(),
    })
}

/// A Debian package.
fn package(path: &Path) -> Result<Option<Found>, PathError> {
    let is_package = !path.is_dir() && path.extension() == Some(OsStr::new("deb"));
    Ok(is_package.then(|| Found::Packages(vec![path.to_owned()])))
}
