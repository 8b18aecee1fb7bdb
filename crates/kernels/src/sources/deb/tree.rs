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

/// What a package has at a path.
pub(crate) enum Entry<'a> {
    /// A regular file.
    File(File<'a>),
    /// A symbolic link, and what it points to.
    Link(PathBuf),
}

/// A regular file, of which at most [`Limits::file_bytes`] are read.
pub(crate) struct File<'a> {
    contents: &'a mut dyn Read,
    /// Whether its owner may execute it.
    pub(crate) is_executable: bool,
    limits: Limits,
}

impl File<'_> {
    /// All of it.
    pub(crate) fn bytes(self) -> io::Result<Vec<u8>> {
        let limit = self.limits.file_bytes;
        read_within(self.contents, limit)?
            .ok_or_else(|| fault(format!("a file in it has more than {limit} bytes")))
    }
}

/// Calls `each` for every regular file, in the order of the archive; links, devices and folders are left out,
/// which also leaves nothing to escape by.
pub(super) fn each_file<R: Read, E: From<io::Error>>(
    data: R,
    limits: Limits,
    mut each: impl FnMut(&Path, File<'_>) -> Result<(), E>,
) -> Result<(), E> {
    each_entry(data, limits, |path, entry| match entry {
        Entry::File(file) => each(path, file),
        Entry::Link(_) => Ok(()),
    })
}

/// Calls `each` for every regular file and symbolic link.
///
/// Entries are taken raw: the names and headers that describe the next entry are read here, since the crate
/// would read them whatever their size.
pub(super) fn each_entry<R: Read, E: From<io::Error>>(
    data: R,
    limits: Limits,
    mut each: impl FnMut(&Path, Entry<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut archive = tar::Archive::new(Bounded {
        inner: data,
        left: limits.unpacked_bytes,
        limit: limits.unpacked_bytes,
    });
    let mut long_name = None;
    let mut long_target = None;
    let mut files = 0;
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let size = entry.header().entry_size()?;
        match entry.header().entry_type() {
            EntryType::GNULongName => {
                long_name = Some(gnu_name(&mut entry, size)?);
            }
            EntryType::GNULongLink => long_target = Some(gnu_name(&mut entry, size)?),
            EntryType::XHeader => {
                let header = read_within(&mut entry, MAX_PAX_BYTES)?
                    .ok_or_else(|| fault(format!("it has an extended header of {size} bytes")))?;
                long_name = pax_path(&header, b"path")?.or(long_name);
                long_target = pax_path(&header, b"linkpath")?.or(long_target);
            }
            // About all that follow, but nothing that matters here.
            EntryType::XGlobalHeader => {}
            kind => {
                let path = match long_name.take() {
                    Some(path) => path,
                    None => plain_path(entry.header()),
                };
                let target = long_target.take();
                if !kind.is_file() && !kind.is_symlink() {
                    continue;
                }
                files += 1;
                if files > limits.files {
                    return Err(fault(format!("it has more than {} files", limits.files)).into());
                }
                if kind.is_symlink() {
                    let short = || entry.header().link_name_bytes().map(|name| path_of(&name));
                    if let Some(target) = target.or_else(short) {
                        each(&path, Entry::Link(target))?;
                    }
                    continue;
                }
                let file = File {
                    is_executable: entry.header().mode().is_ok_and(|mode| mode & 0o100 != 0),
                    contents: &mut entry,
                    limits,
                };
                each(&path, Entry::File(file))?;
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

/// The contents of an entry that is a name for the next.
fn gnu_name(entry: &mut impl Read, size: u64) -> io::Result<PathBuf> {
    let name = read_within(entry, MAX_NAME_BYTES)?
        .ok_or_else(|| fault(format!("it has a file name of {size} bytes")))?;
    Ok(path_of(
        name.split(|&byte| byte == 0).next().unwrap_or(&name),
    ))
}

/// The value of `key`, a path, in a PAX header. One that gives the next file a size is for files beyond 8 GiB.
fn pax_path(header: &[u8], key: &[u8]) -> io::Result<Option<PathBuf>> {
    let mut path = None;
    for extension in PaxExtensions::new(header) {
        let extension = extension?;
        match extension.key_bytes() {
            found if found == key => path = Some(path_of(extension.value_bytes())),
            b"size" => return Err(fault("it has a file beyond 8 GiB".to_owned())),
            _ => {}
        }
    }
    Ok(path)
}

/// All bytes, or nothing if there are more than `limit`.
pub(super) fn read_within(
    reader: &mut (impl Read + ?Sized),
    limit: u64,
) -> io::Result<Option<Vec<u8>>> {
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
