//! The initramfs in one piece, in memory.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::engine::LaunchError;
use crate::spec::{InitrdPart, SpecError};

/// The kernel looks for the next archive at multiples of this (init/initramfs.c).
const ALIGN_BYTES: u64 = 4;

/// All parts, each file opened, and their length in bytes when they follow each other.
pub(crate) fn open(parts: &[InitrdPart]) -> Result<(Vec<ktstr_vmm::InitrdPart>, u64), SpecError> {
    let mut opened = Vec::with_capacity(parts.len());
    let mut total = 0u64;
    for part in parts {
        let (part, len) = match (part, part.open()?) {
            (_, Some((file, len))) => (ktstr_vmm::InitrdPart::File(file), len),
            (InitrdPart::Bytes(bytes), None) => {
                let len = bytes.len() as u64;
                (ktstr_vmm::InitrdPart::Bytes(Arc::clone(bytes)), len)
            }
            (InitrdPart::File(_) | InitrdPart::Open { .. }, None) => continue,
        };
        opened.push(part);
        total = total.saturating_add(len).next_multiple_of(ALIGN_BYTES);
    }
    Ok((opened, total))
}

/// All parts in a row, in memory that can't be changed any more; `None` if there are no parts.
pub(crate) fn concatenate(parts: &[InitrdPart]) -> Result<Option<OwnedFd>, LaunchError> {
    if parts.is_empty() {
        return Ok(None);
    }
    let failed = |source: io::Error| LaunchError::host("put the initramfs into memory", source);
    let fd = memfd_create(
        c"ktstr-initrd",
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )
    .map_err(|errno| failed(errno.into()))?;
    let mut whole = File::from(fd);
    let mut at = 0;
    for part in parts {
        match part {
            InitrdPart::File(path) | InitrdPart::Open { path, .. } => {
                let Some((mut file, _)) = part.open()? else {
                    continue;
                };
                at += io::copy(&mut file, &mut whole).map_err(|source| {
                    LaunchError::host(
                        format!("copy the initramfs part {} into memory", path.display()),
                        source,
                    )
                })?;
            }
            InitrdPart::Bytes(bytes) => {
                whole.write_all(bytes).map_err(failed)?;
                at += bytes.len() as u64;
            }
        }
        for _ in at..at.next_multiple_of(ALIGN_BYTES) {
            whole.write_all(&[0]).map_err(failed)?;
        }
        at = at.next_multiple_of(ALIGN_BYTES);
    }
    let seals = SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SEAL;
    fcntl(&whole, FcntlArg::F_ADD_SEALS(seals)).map_err(|errno| failed(errno.into()))?;
    Ok(Some(whole.into()))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::io::Seek;

    use super::*;

    #[test]
    fn parts_follow_each_other_at_multiples_of_4() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base.cpio");
        std::fs::write(&path, b"abcde").unwrap();
        let kept = dir.path().join("kept.cpio");
        std::fs::write(&kept, b"kept").unwrap();
        let file = Arc::new(File::open(&kept).unwrap());
        std::fs::remove_file(&kept).unwrap();
        let parts = [
            InitrdPart::Open { path: kept, file },
            InitrdPart::File(path),
            InitrdPart::Bytes((*b"xy").into()),
            InitrdPart::Bytes((*b"1234").into()),
        ];
        let mut whole = File::from(concatenate(&parts).unwrap().unwrap());
        let mut bytes = Vec::new();
        whole.rewind().unwrap();
        whole.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"keptabcde\0\0\0xy\0\x001234");
        assert_eq!(open(&parts).unwrap().1, bytes.len() as u64);
        assert!(whole.write_all(b"z").is_err());
    }
}
