//! Files that a person named: regular ones, of a size that can be read. A pipe or a device would be waited
//! for, or read without end.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Why a path is not a file that can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It is a pipe, a device or a socket.
    #[error("{} is {kind}, not a file; copy what it gives into a file, and give that", path.display())]
    Kind {
        path: PathBuf,
        /// What it is, in words.
        kind: &'static str,
    },
    /// It is larger than anything that it could be.
    #[error("{} has {size_bytes} bytes; at most {limit_bytes} are read as {as_what}", path.display())]
    Size {
        path: PathBuf,
        size_bytes: u64,
        limit_bytes: u64,
        /// What it was taken for.
        as_what: &'static str,
    },
    #[error("can't read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

fn failed(path: &Path, source: io::Error) -> FileError {
    FileError::Read {
        path: path.to_owned(),
        source,
    }
}

/// What a path is that is neither a file nor a folder.
fn kind(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_fifo() {
        "a pipe"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a folder"
    }
}

/// Opens a file of at most `limit_bytes`. Opening a pipe would wait for its other end, so it is looked at first.
pub(super) fn open(
    path: &Path,
    limit_bytes: u64,
    as_what: &'static str,
) -> Result<File, FileError> {
    let metadata = fs::metadata(path).map_err(|source| failed(path, source))?;
    if !metadata.is_file() {
        return Err(FileError::Kind {
            path: path.to_owned(),
            kind: kind(&metadata),
        });
    }
    let size_bytes = metadata.len();
    if size_bytes > limit_bytes {
        return Err(FileError::Size {
            path: path.to_owned(),
            size_bytes,
            limit_bytes,
            as_what,
        });
    }
    File::open(path).map_err(|source| failed(path, source))
}

/// All of it. Of a file that grows, no more than the bound is read.
pub(super) fn read(
    path: &Path,
    limit_bytes: u64,
    as_what: &'static str,
) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    open(path, limit_bytes, as_what)?
        .take(limit_bytes)
        .read_to_end(&mut bytes)
        .map_err(|source| failed(path, source))?;
    Ok(bytes)
}
