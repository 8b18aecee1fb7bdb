//! The socket pairs between us and QEMU.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use super::args::ChildFds;
use crate::memory::RamFile;

/// Our ends.
#[derive(Debug)]
pub(crate) struct HostEnds {
    pub(crate) qmp: UnixStream,
    pub(crate) com1: UnixStream,
    pub(crate) com2: UnixStream,
    pub(crate) stderr: UnixStream,
    pub(crate) frames: UnixStream,
    pub(crate) shell: Option<UnixStream>,
}

/// What QEMU inherits. Dropped in our process once QEMU runs, so that its end is the end of the streams.
#[derive(Debug)]
pub(crate) struct ChildEnds {
    qmp: UnixStream,
    com1: UnixStream,
    com2: UnixStream,
    frames: UnixStream,
    shell: Option<UnixStream>,
    stderr: UnixStream,
    ram: Vec<RamFile>,
    initrd: Option<OwnedFd>,
}

/// Makes all pairs; every fd is close-on-exec.
pub(crate) fn pairs(
    ram: Vec<RamFile>,
    initrd: Option<OwnedFd>,
    with_shell: bool,
) -> io::Result<(HostEnds, ChildEnds)> {
    let (qmp, child_qmp) = UnixStream::pair()?;
    let (com1, child_com1) = UnixStream::pair()?;
    let (com2, child_com2) = UnixStream::pair()?;
    let (stderr, child_stderr) = UnixStream::pair()?;
    let (frames, child_frames) = UnixStream::pair()?;
    let (shell, child_shell) = if with_shell {
        let (host, child) = UnixStream::pair()?;
        (Some(host), Some(child))
    } else {
        (None, None)
    };
    let host = HostEnds {
        qmp,
        com1,
        com2,
        stderr,
        frames,
        shell,
    };
    let child = ChildEnds {
        qmp: child_qmp,
        com1: child_com1,
        com2: child_com2,
        frames: child_frames,
        shell: child_shell,
        stderr: child_stderr,
        ram,
        initrd,
    };
    Ok((host, child))
}

impl ChildEnds {
    /// The numbers that QEMU is told.
    pub(crate) fn fds(&self) -> ChildFds {
        ChildFds {
            ram: self.ram.iter().map(|file| file.fd.as_raw_fd()).collect(),
            initrd: self.initrd.as_ref().map(AsRawFd::as_raw_fd),
            qmp: self.qmp.as_raw_fd(),
            com1: self.com1.as_raw_fd(),
            com2: self.com2.as_raw_fd(),
            frames: self.frames.as_raw_fd(),
            shell: self.shell.as_ref().map(AsRawFd::as_raw_fd),
        }
    }

    /// QEMU's standard error.
    pub(crate) fn stderr(&self) -> io::Result<OwnedFd> {
        self.stderr.try_clone().map(Into::into)
    }
}

impl ChildFds {
    /// All of them.
    pub(crate) fn all(&self) -> Vec<RawFd> {
        let fixed = [self.qmp, self.com1, self.com2, self.frames];
        let given = self.initrd.into_iter().chain(self.shell);
        self.ram.iter().copied().chain(fixed).chain(given).collect()
    }
}
