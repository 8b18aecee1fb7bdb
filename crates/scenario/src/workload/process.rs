//! A forked worker, as the harness sees it.

use ktstr_report::WorkerExit;
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, setpgid};

/// A child process that leads a process group of its own.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    reaped: bool,
    exit: Option<WorkerExit>,
}

impl Process {
    pub(super) fn new(pid: Pid) -> Self {
        // Also done by the child. The error means that it already has, or that it is gone.
        let _ = setpgid(pid, pid);
        Self {
            pid,
            reaped: false,
            exit: None,
        }
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// How it ended, if it has. It stays a zombie, so that its pid and group stay its own.
    pub(super) fn look(&mut self) -> Option<&WorkerExit> {
        if self.exit.is_none() {
            self.exit = wait(self.pid, WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG);
        }
        self.exit.as_ref()
    }

    /// Kills it and every process that its work started, except those that left the group. Only before it
    /// is reaped: afterwards the number of the group may belong to others.
    pub(super) fn kill_group(&self) {
        if !self.reaped {
            // ESRCH: nothing is left of the group.
            let _ = killpg(self.pid, Signal::SIGKILL);
        }
    }

    /// Frees its pid if it has ended; whether it has.
    pub(super) fn reap(&mut self) -> bool {
        if !self.reaped
            && let Some(exit) = wait(self.pid, WaitPidFlag::WNOHANG)
        {
            self.reaped = true;
            self.exit.get_or_insert(exit);
        }
        self.reaped
    }
}

fn wait(pid: Pid, flags: WaitPidFlag) -> Option<WorkerExit> {
    match waitid(Id::Pid(pid), flags | WaitPidFlag::WEXITED) {
        Ok(WaitStatus::Exited(_, status)) => Some(WorkerExit::Exited(status)),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(WorkerExit::Signaled(signal as i32)),
        Ok(_) | Err(Errno::EINTR) => None,
        Err(Errno::ECHILD) => Some(WorkerExit::WaitFailed(
            "another part of the harness has reaped it".to_owned(),
        )),
        Err(errno) => Some(WorkerExit::WaitFailed(errno.to_string())),
    }
}
