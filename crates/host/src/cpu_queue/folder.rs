//! Where the queue's files are, and whether they can be there.

use std::fs::{DirBuilder, symlink_metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, statfs};
use nix::unistd::geteuid;

use super::waiting::QueueError;

/// The folder as chosen, or the default one: the same for all processes of a user, so not in a place that a
/// variable of a login session names.
pub(super) fn chosen(folder: Option<&Path>) -> PathBuf {
    folder.map_or_else(
        || Path::new("/tmp").join(format!("ktstr-{}", geteuid())),
        Path::to_owned,
    )
}

/// Makes the folder, and refuses one that others can change or where locks can't be relied on.
pub(super) fn prepare(folder: Option<&Path>) -> Result<PathBuf, QueueError> {
    let path = chosen(folder);
    let make = || -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)?;
        let metadata = symlink_metadata(&path)?;
        let is_ours = metadata.uid() == geteuid().as_raw() && metadata.mode() & 0o022 == 0;
        // Anybody can make a folder in /tmp.
        if folder.is_none() && !(metadata.is_dir() && is_ours) {
            return Err(io::Error::other("it is not this user's alone"));
        }
        match unreliable(statfs(&path)?.filesystem_type()) {
            Some(name) => Err(io::Error::other(format!(
                "it is on {name}, whose file locks can't be relied on"
            ))),
            None => Ok(()),
        }
    };
    make().map_err(|source| QueueError::unusable(&path, source))?;
    Ok(path)
}

/// File systems of other machines and of user space: their locks may be local, fail, or outlive their
/// process. Numbers from include/uapi/linux/magic.h and fs/smb/common/smb2pdu.h.
fn unreliable(kind: FsType) -> Option<&'static str> {
    match kind.0 {
        0x6969 => Some("NFS"),
        0x6573_5546 => Some("FUSE"),
        0xff53_4d42 | 0xfe53_4d42 => Some("SMB"),
        0x0102_1997 => Some("9p"),
        0x00c3_6400 => Some("Ceph"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_of_other_machines_are_refused_by_name() {
        use nix::sys::statfs;
        assert_eq!(unreliable(statfs::NFS_SUPER_MAGIC), Some("NFS"));
        assert_eq!(unreliable(statfs::FUSE_SUPER_MAGIC), Some("FUSE"));
        assert_eq!(unreliable(statfs::TMPFS_MAGIC), None);
        assert_eq!(unreliable(statfs::EXT4_SUPER_MAGIC), None);
    }

    #[test]
    fn a_folder_is_made_for_its_user_alone_or_named_with_a_way_out() {
        let parent = tempfile::tempdir().unwrap();
        let folder = prepare(Some(&parent.path().join("a/b"))).unwrap();
        assert_eq!(symlink_metadata(folder).unwrap().mode() & 0o777, 0o700);
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = prepare(Some(&file.path().join("x")))
            .unwrap_err()
            .to_string();
        assert!(error.contains("Not a directory"), "{error}");
        assert!(error.contains("KTSTR_LOCK_DIR"), "{error}");
    }
}
