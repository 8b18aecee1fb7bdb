//! QEMU as a child process that never outlives us.
use std::ffi::OsString;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Starts QEMU. It is killed when the calling *thread* ends (PR_SET_PDEATHSIG, prctl(2)), so the caller
/// must be the thread that waits for it. It is in a process group of its own: ^C on the terminal is for us,
/// and we end it.
pub(crate) fn spawn(
    qemu: &Path,
    args: &[OsString],
    inherited: &[RawFd],
    (stdout, stderr): (Option<OwnedFd>, OwnedFd),
) -> io::Result<Child> {
    tracing::debug!(qemu = %qemu.display(), ?args, "starting QEMU");
    let mut command = Command::new(qemu);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(stdout.map_or_else(Stdio::null, Stdio::from))
        .stderr(stderr)
        .process_group(0);
    ktstr_sys::tie_to_thread(&mut command, inherited);
    command.spawn()
}

/// An fd that becomes readable when `child` has ended (pidfd_open(2)).
pub(crate) fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}
