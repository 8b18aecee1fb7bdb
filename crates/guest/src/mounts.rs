//! The file systems a test expects.

use std::fs;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use crate::packed::{Covered, MoveError};

/// The guest's file systems can't be set up, and no test can run without them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    /// One can't be mounted.
    #[error("mounting {kind} on {target}: {errno}; the kernel needs {option}")]
    Mount {
        kind: &'static str,
        target: &'static str,
        option: &'static str,
        errno: Errno,
    },
    /// A packed file can't be moved into one.
    #[error(transparent)]
    Packed(#[from] MoveError),
}

struct Mount {
    kind: &'static str,
    target: &'static str,
    options: &'static str,
    /// Kernel option that provides it.
    option: &'static str,
    required: bool,
}

const fn required(
    kind: &'static str,
    target: &'static str,
    options: &'static str,
    option: &'static str,
) -> Mount {
    Mount {
        kind,
        target,
        options,
        option,
        required: true,
    }
}

const fn optional(kind: &'static str, target: &'static str, option: &'static str) -> Mount {
    Mount {
        kind,
        target,
        options: "",
        option,
        required: false,
    }
}

const MOUNTS: [Mount; 11] = [
    required("proc", "/proc", "", "CONFIG_PROC_FS"),
    required("sysfs", "/sys", "", "CONFIG_SYSFS"),
    required("devtmpfs", "/dev", "mode=0755", "CONFIG_DEVTMPFS"),
    required("tmpfs", "/run", "mode=0755", "CONFIG_TMPFS"),
    required("tmpfs", "/tmp", "mode=1777", "CONFIG_TMPFS"),
    required("cgroup2", "/sys/fs/cgroup", "", "CONFIG_CGROUPS"),
    optional("devpts", "/dev/pts", "CONFIG_UNIX98_PTYS"),
    optional("tmpfs", "/dev/shm", "CONFIG_TMPFS"),
    optional("debugfs", "/sys/kernel/debug", "CONFIG_DEBUG_FS"),
    optional("tracefs", "/sys/kernel/tracing", "CONFIG_TRACING"),
    optional("bpf", "/sys/fs/bpf", "CONFIG_BPF_SYSCALL"),
];

/// Folders that files may be packed into, and that something is mounted on.
const FOLDERS_WITH_FILES: [&str; 3] = ["/dev", "/run", "/tmp"];

/// Mounts everything, and brings what was packed below a mount back to light. Returns a remark for each file system that
/// a test can do without.
pub(crate) fn mount_all() -> Result<Vec<String>, MountError> {
    let covered = FOLDERS_WITH_FILES.map(|folder| Covered::look(Path::new(folder)));
    let remarks = mount_each()?;
    for covered in covered.iter().flatten() {
        covered.uncover()?;
    }
    Ok(remarks)
}

fn mount_each() -> Result<Vec<String>, MountError> {
    let mut remarks = Vec::new();
    for entry in &MOUNTS {
        match mount_one(entry) {
            Ok(()) => {}
            // Already there: a kernel with CONFIG_DEVTMPFS_MOUNT, or /init started by another init.
            Err(Errno::EBUSY) => {}
            Err(errno) => {
                let Mount {
                    kind,
                    target,
                    option,
                    ..
                } = *entry;
                let error = MountError::Mount {
                    kind,
                    target,
                    option,
                    errno,
                };
                if entry.required {
                    return Err(error);
                }
                remarks.push(error.to_string());
            }
        }
    }
    Ok(remarks)
}

fn mount_one(entry: &Mount) -> Result<(), Errno> {
    if !Path::new(entry.target).exists() {
        fs::create_dir_all(entry.target)
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOATIME;
    mount(
        Some(entry.kind),
        entry.target,
        Some(entry.kind),
        flags,
        Some(entry.options),
    )
}
