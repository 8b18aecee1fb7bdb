//! Archives in the kernel's initramfs format (`newc`, Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path};

use cpio::newc::{Builder, trailer};

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;

/// The kernel reads archives one behind the other when each starts at a multiple of this.
const ALIGNMENT: usize = 4;

/// What the guest mounts here has no room for files.
const KERNEL_FOLDERS: [&str; 2] = ["proc", "sys"];

/// An archive under construction, in memory.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
}

/// A path that an initramfs can't hold.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The path in the guest is not absolute, or climbs with `..`.
    #[error("`{0}` can't be a path in the guest: it must be absolute and without `..`")]
    Path(String),
    /// The guest mounts a file system of the kernel's there, which holds no files.
    #[error(
        "`{0}` can't be a path in the guest: the kernel's own file systems are on /proc and /sys"
    )]
    Hidden(String),
    /// The format has 32-bit sizes.
    #[error("`{0}` is larger than 4 GiB, the limit of a file in an initramfs")]
    TooLarge(String),
    /// Writing to memory failed.
    #[error("adding `{path}` to the initramfs")]
    Write {
        /// The path in the guest.
        path: String,
        /// The cause.
        source: io::Error,
    },
}

impl Archive {
    /// Adds a directory, and those above it.
    pub(super) fn directory(&mut self, path: &str) -> Result<(), ArchiveError> {
        let mut above = String::new();
        for name in names(path)? {
            if !above.is_empty() {
                above.push('/');
            }
            above.push_str(name);
            if self.directories.insert(above.clone()) {
                self.entry(&above, DIRECTORY, &[])?;
            }
        }
        Ok(())
    }

    /// Adds a file, executable for all, and the directories above it.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) -> Result<(), ArchiveError> {
        let names = names(path)?;
        if names
            .first()
            .is_some_and(|first| KERNEL_FOLDERS.contains(first))
        {
            return Err(ArchiveError::Hidden(path.to_owned()));
        }
        if let Some((_, above)) = names.split_last() {
            self.directory(&format!("/{}", above.join("/")))?;
        }
        self.entry(&names.join("/"), EXECUTABLE, content)
    }

    /// The finished archive.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, ArchiveError> {
        self.bytes = trailer(self.bytes).map_err(|source| ArchiveError::Write {
            path: "/".to_owned(),
            source,
        })?;
        let padded = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(padded, 0);
        Ok(self.bytes)
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<(), ArchiveError> {
        let size =
            u32::try_from(content.len()).map_err(|_| ArchiveError::TooLarge(name.to_owned()))?;
        let builder = Builder::new(name).mode(mode).nlink(1);
        let mut writer = builder.write(&mut self.bytes, size);
        let written = io::Write::write_all(&mut writer, content).and_then(|()| writer.finish());
        written.map(drop).map_err(|source| ArchiveError::Write {
            path: name.to_owned(),
            source,
        })
    }
}

fn names(path: &str) -> Result<Vec<&str>, ArchiveError> {
    let refused = || ArchiveError::Path(path.to_owned());
    let mut components = Path::new(path).components();
    if components.next() != Some(Component::RootDir) {
        return Err(refused());
    }
    components
        .map(|component| match component {
            Component::Normal(name) => name.to_str().ok_or_else(refused),
            _ => Err(refused()),
        })
        .collect()
}
