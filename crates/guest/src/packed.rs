//! Files that were packed below a folder that the guest mounts a file system on, such as `/tmp`: they are moved into
//! that, or else nobody could see them.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// A file that was packed can't be moved to where it belongs.
#[derive(Debug, thiserror::Error)]
#[error("moving the packed file {path} into the file system that is mounted there")]
pub(crate) struct MoveError {
    path: PathBuf,
    source: io::Error,
}

/// A folder as it was before something was mounted on it.
#[derive(Debug)]
pub(crate) struct Covered {
    folder: PathBuf,
    before: File,
}

impl Covered {
    /// Keeps hold of `folder`, if it is there and anything is in it.
    pub(crate) fn look(folder: &Path) -> Option<Self> {
        let has_entries = fs::read_dir(folder).ok()?.next().is_some();
        let before = has_entries.then(|| File::open(folder).ok())?;
        before.map(|before| Self {
            folder: folder.to_owned(),
            before,
        })
    }

    /// Moves all files, folders and links to the same path, where a file system is mounted by now. Devices stay: the
    /// kernel's archive of its own has `/dev/console`.
    pub(crate) fn uncover(&self) -> Result<(), MoveError> {
        // A path through the descriptor leads below the mount.
        let before = format!("/proc/self/fd/{}", self.before.as_raw_fd());
        move_entries(Path::new(&before), &self.folder)
    }
}

fn move_entries(from: &Path, to: &Path) -> Result<(), MoveError> {
    let failed = |source| MoveError {
        path: to.to_owned(),
        source,
    };
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let target = to.join(entry.file_name());
        move_entry(&entry, &target).map_err(|source| MoveError {
            path: target.clone(),
            source,
        })?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            move_entries(&entry.path(), &target)?;
            // Only what is empty can be removed so.
            let _ = fs::remove_dir(entry.path());
        }
    }
    Ok(())
}

fn move_entry(entry: &fs::DirEntry, target: &Path) -> io::Result<()> {
    let kind = entry.file_type()?;
    let source = entry.path();
    if kind.is_dir() {
        match fs::create_dir(target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && target.is_dir() => {}
            made => {
                made?;
                fs::set_permissions(target, entry.metadata()?.permissions())?;
            }
        }
    } else if kind.is_symlink() {
        symlink(fs::read_link(&source)?, target)?;
        fs::remove_file(source)?;
    } else if kind.is_file() {
        let mut file = File::create_new(target)?;
        io::copy(&mut File::open(&source)?, &mut file)?;
        let mode = entry.metadata()?.permissions().mode();
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        // Frees its memory, unless it is a library of this process.
        fs::remove_file(source)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_devices_is_moved() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        for path in ["from/deep/down", "to/deep"] {
            fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        fs::write(from.join("deep/down/program"), "#!/bin/sh").unwrap();
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(from.join("deep/down/program"), mode).unwrap();
        fs::write(to.join("deep/other"), "stays").unwrap();
        symlink("down/program", from.join("deep/link")).unwrap();
        let covered = Covered {
            folder: to.clone(),
            before: File::open(&from).unwrap(),
        };
        covered.uncover().unwrap();
        assert_eq!(
            fs::read_to_string(to.join("deep/link")).unwrap(),
            "#!/bin/sh"
        );
        assert_eq!(fs::read_to_string(to.join("deep/other")).unwrap(), "stays");
        let found = to.join("deep/down/program").metadata().unwrap();
        assert_eq!(found.permissions().mode() & 0o777, 0o755);
        assert!(fs::read_dir(&from).unwrap().next().is_none());
    }

    #[test]
    fn what_is_there_already_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        for path in [&from, &to] {
            fs::create_dir(path).unwrap();
            fs::write(path.join("null"), path.as_os_str().as_encoded_bytes()).unwrap();
        }
        assert!(Covered::look(&folder.path().join("none")).is_none());
        let covered = Covered {
            before: File::open(&from).unwrap(),
            folder: to.clone(),
        };
        let error = covered.uncover().unwrap_err();
        assert!(error.to_string().contains("/to/null"), "{error}");
    }
}
