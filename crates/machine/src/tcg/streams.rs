//! The socket pairs and pipes between us and QEMU.
//!
//! The serial ports are pipes. QEMU hands a guest's bytes on one by one, and a socket counts each of them as
//! a packet: it is full after a few hundred, and what a kernel prints beyond that is lost when we don't get
//! to read at once. A pipe counts bytes.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use ktstr_vmm::NodeMemory;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;

use super::args::ChildFds;
use super::pause_pipe::{ChildPausePipe, PausePipe};
use crate::devices::QemuDevice;
use crate::spec::MachineSpec;

/// Room for what a guest prints while we are busy: the kernel's default limit (pipe(7)).
const SERIAL_BYTES: i32 = 1 << 20;

/// Our ends.
#[derive(Debug)]
pub(crate) struct HostEnds {
    pub(crate) qmp: UnixStream,
    pub(crate) com1: OwnedFd,
    pub(crate) com2: OwnedFd,
    pub(crate) stderr: UnixStream,
    pub(crate) frames: UnixStream,
    pub(crate) shell: Option<UnixStream>,
    pub(crate) pause: Option<PausePipe>,
}

/// What QEMU inherits. Dropped in our process once QEMU runs, so that its end is the end of the streams.
#[derive(Debug)]
pub(crate) struct ChildEnds {
    qmp: UnixStream,
    com1: OwnedFd,
    com2: OwnedFd,
    frames: UnixStream,
    shell: Option<UnixStream>,
    stderr: UnixStream,
    pause: Option<ChildPausePipe>,
    ram: Vec<NodeMemory>,
    initrd: Option<OwnedFd>,
    devices: Vec<QemuDevice>,
}

/// Makes all pairs; every fd is close-on-exec.
pub(crate) fn pairs(
    ram: Vec<NodeMemory>,
    initrd: Option<OwnedFd>,
    devices: Vec<QemuDevice>,
    spec: &MachineSpec,
) -> io::Result<(HostEnds, ChildEnds)> {
    let (qmp, child_qmp) = UnixStream::pair()?;
    let (com1, child_com1) = serial()?;
    let (com2, child_com2) = serial()?;
    let (stderr, child_stderr) = UnixStream::pair()?;
    let (frames, child_frames) = UnixStream::pair()?;
    let (shell, child_shell) = if spec.interactive_console {
        let (host, child) = UnixStream::pair()?;
        (Some(host), Some(child))
    } else {
        (None, None)
    };
    let (pause, child_pause) = match spec.pause_port {
        Some(_) => {
            let (pipe, child) = PausePipe::new()?;
            (Some(pipe), Some(child))
        }
        None => (None, None),
    };
    let host = HostEnds {
        qmp,
        com1,
        com2,
        stderr,
        frames,
        shell,
        pause,
    };
    let child = ChildEnds {
        qmp: child_qmp,
        com1: child_com1,
        com2: child_com2,
        frames: child_frames,
        shell: child_shell,
        stderr: child_stderr,
        pause: child_pause,
        ram,
        initrd,
        devices,
    };
    Ok((host, child))
}

/// A pipe from a serial port of QEMU's to us, which we read without waiting.
fn serial() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    // The user may have used up what they may have in pipes; then the usual 64 KiB must do.
    let _ = fcntl(&ours, FcntlArg::F_SETPIPE_SZ(SERIAL_BYTES));
    Ok((ours, theirs))
}

impl ChildEnds {
    /// The numbers that QEMU is told.
    pub(crate) fn fds(&self) -> ChildFds {
        ChildFds {
            ram: self
                .ram
                .iter()
                .map(|node| node.as_fd().as_raw_fd())
                .collect(),
            initrd: self.initrd.as_ref().map(AsRawFd::as_raw_fd),
            qmp: self.qmp.as_raw_fd(),
            com1: self.com1.as_raw_fd(),
            com2: self.com2.as_raw_fd(),
            frames: self.frames.as_raw_fd(),
            shell: self.shell.as_ref().map(AsRawFd::as_raw_fd),
            devices: self
                .devices
                .iter()
                .flat_map(|device| device.files.iter().map(AsRawFd::as_raw_fd))
                .collect(),
            pause: self.pause.as_ref().map(|pause| pause.notices.as_raw_fd()),
        }
    }

    /// Devices beyond those that every machine has.
    pub(crate) fn devices(&self) -> &[QemuDevice] {
        &self.devices
    }

    /// QEMU's standard output, if it has one, and standard error.
    pub(crate) fn outputs(&self) -> io::Result<(Option<OwnedFd>, OwnedFd)> {
        let stdout = self.pause.as_ref().map(|pause| pause.hold.try_clone());
        let stdout = stdout.transpose()?;
        Ok((stdout, self.stderr.try_clone()?.into()))
    }
}

impl ChildFds {
    /// All of them.
    pub(crate) fn all(&self) -> Vec<RawFd> {
        let fixed = [self.qmp, self.com1, self.com2, self.frames];
        let given = self.initrd.into_iter().chain(self.shell).chain(self.pause);
        let devices = self.devices.iter().copied();
        let ram = self.ram.iter().copied();
        ram.chain(fixed).chain(given).chain(devices).collect()
    }
}
