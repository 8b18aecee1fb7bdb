//! The files in a package's tar, each with its name, all of it within bounds.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tar::{EntryType, Header, PaxExtensions};

use super::Limits;

/// Most bytes of a file name: `PATH_MAX`, with its NUL.
const MAX_NAME_BYTES: u64 = 4096;
/// Most bytes of a PAX header. Beside a name it has times, and attributes of security modules.
const MAX_PAX_BYTES: u64 = 1 << 20;

/// A file's contents, at most [`Limits::file_bytes`] of them.
pub(super) struct File<'a, 'b, R: Read> {
    entry: &'b mut tar::Entry<'a, R>,
    limits: Limits,
}

impl<R: Read> File<'_, '_, R> {
    pub(super) fn bytes(self) -> io::Result<Vec<u8>> {
        let limit = self.limits.file_bytes;
        read_within(self.entry, limit)?
            .ok_or_else(|| fault(format!("a file in it has more than {limit} bytes")))
    }
}

/// Calls `each` for every regular file, in the order of the archive; links, devices and folders are left out,
/// which also leaves nothing to escape by.
///
/// Entries are taken raw: the names and headers that describe the next entry are read here, since the crate
/// would read them whatever their size.
pub(super) fn each_file<R: Read, E: From<io::Error>>(
    data: R,
    limits: Limits,
    mut each: impl FnMut(&Path, File<'_, '_, Bounded<R>>) -> Result<(), E>,
) -> Result<(), E> {
    let mut archive = tar::Archive::new(Bounded {
        inner: data,
        left: limits.unpacked_bytes,
        limit: limits.unpacked_bytes,
    });
    let mut long_name = None;
    let mut files = 0;
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let size = entry.header().entry_size()?;
        match entry.header().entry_type() {
            EntryType::GNULongName => {
                let name = read_within(&mut entry, MAX_NAME_BYTES)?
                    .ok_or_else(|| fault(format!("it has a file name of {size} bytes")))?;
                long_name = Some(path_of(
                    name.split(|&byte| byte == 0).next().unwrap_or(&name),
                ));
            }
            EntryType::XHeader => {
                let header = read_within(&mut entry, MAX_PAX_BYTES)?
                    .ok_or_else(|| fault(format!("it has an extended header of {size} bytes")))?;
                long_name = pax_path(&header)?.or(long_name);
            }
            // About the next entry too, but nothing that matters here.
            EntryType::GNULongLink | EntryType::XGlobalHeader => {}
            kind => {
                let path = match long_name.take() {
                    Some(path) => path,
                    None => plain_path(entry.header()),
                };
                if !kind.is_file() {
                    continue;
                }
                files += 1;
                if files > limits.files {
                    return Err(fault(format!("it has more than {} files", limits.files)).into());
                }
                let entry = &mut entry;
                each(&path, File { entry, limits })?;
            }
        }
    }
    Ok(())
}

fn fault(text: String) -> io::Error {
    io::Error::other(text)
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

fn plain_path(header: &Header) -> PathBuf {
    path_of(&header.path_bytes())
}

/// The `path` of a PAX header. One that gives the next file a size is for files beyond 8 GiB.
fn pax_path(header: &[u8]) -> io::Result<Option<PathBuf>> {
    let mut path = None;
    for extension in PaxExtensions::new(header) {
        let extension = extension?;
        match extension.key_bytes() {
            b"path" => path = Some(path_of(extension.value_bytes())),
            b"size" => return Err(fault("it has a file beyond 8 GiB".to_owned())),
            _ => {}
        }
    }
    Ok(path)
}

/// All bytes, or nothing if there are more than `limit`.
pub(super) fn read_within(reader: &mut impl Read, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    reader.take(limit + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

/// A reader that ends with an error after so many bytes, where a compressed file has far more in it.
pub(super) struct Bounded<R> {
    inner: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            fault(format!(
                "it unpacks to more than {} bytes, which no kernel's package does",
                self.limit
            ))
        })?;
        Ok(count)
    }
}
