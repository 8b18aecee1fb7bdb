//! QEMU as a child process that never outlives us.
#![expect(
    unsafe_code,
    reason = "what the child does between fork and exec, and pidfd_open, which no safe crate wraps"
)]

use std::ffi::OsString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};

/// Starts QEMU. It is killed when the calling *thread* ends (PR_SET_PDEATHSIG, prctl(2)), so the caller
/// must be the thread that waits for it. It is in a process group of its own: ^C on the terminal is for us,
/// and we end it.
pub(crate) fn spawn(
    qemu: &Path,
    args: &[OsString],
    inherited: &[RawFd],
    stderr: OwnedFd,
) -> io::Result<Child> {
    let parent = getpid();
    let inherited = inherited.to_vec();
    let mut command = Command::new(qemu);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .process_group(0);
    // SAFETY: the closure runs in the forked child of a process with threads, so it may only do what is
    // async-signal-safe: it makes plain system calls and allocates nothing.
    unsafe { command.pre_exec(move || prepare_child(parent, &inherited)) };
    command.spawn()
}

fn prepare_child(parent: Pid, inherited: &[RawFd]) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    // If the parent died before that took effect, no signal will come.
    if getppid() != parent {
        return Err(Errno::ESRCH.into());
    }
    for &fd in inherited {
        // SAFETY: F_SETFD takes an integer and touches no memory; a bad fd gives an error.
        Errno::result(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })?;
    }
    Ok(())
}

/// An fd that becomes readable when `child` has ended (pidfd_open(2)).
pub(crate) fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    // SAFETY: the call takes two integers. The pid is that of our own child, which has not been waited
    // for, so it can't be another's.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just gave us this fd, which nobody else has; it is close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
