//! System calls and instructions that no kept crate makes safe, behind safe functions.
#![expect(
    unsafe_code,
    reason = "what a child does between fork and exec, the scheduling policy of a thread, and the time stamp counter"
)]

use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use libc::{SCHED_RESET_ON_FORK, pid_t, sched_param};
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid, setsid};

/// The child is killed when the calling *thread* ends (`PR_SET_PDEATHSIG`, prctl(2)), so the caller must be the thread
/// that waits for it. It inherits these descriptors; a bad one makes the start fail with `EBADF`.
pub fn tie_to_thread(command: &mut Command, inherited: &[RawFd]) {
    let parent = getpid();
    let inherited = inherited.to_vec();
    let prepare = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // If the parent died before that took effect, no signal will come.
        if getppid() != parent {
            return Err(Errno::ESRCH.into());
        }
        for &fd in &inherited {
            // SAFETY: F_SETFD takes an integer and touches no memory; a bad fd gives an error.
            Errno::result(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })?;
        }
        Ok(())
    };
    // SAFETY: the closure runs in the forked child of a process with threads, so it may only do what is
    // async-signal-safe: it makes plain system calls and allocates nothing.
    unsafe { command.pre_exec(prepare) };
}

/// The child has a session of its own, whose terminal is the one on its standard input, so that ^C and job control
/// work.
pub fn give_session_and_terminal(command: &mut Command) {
    let prepare = || {
        setsid()?;
        // SAFETY: TIOCSCTTY takes an integer and touches no memory (ioctl_tty(2)).
        Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })?;
        Ok(())
    };
    // SAFETY: setsid(2) and ioctl(2) are async-signal-safe and allocate nothing.
    unsafe { command.pre_exec(prepare) };
}

/// The calling thread traces the child from its exec on (`PTRACE_TRACEME`, ptrace(2)).
pub fn trace_from_exec(command: &mut Command) {
    // SAFETY: between fork and exec only ptrace(2) is called, which takes no lock and no memory.
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
}

/// Policy and real-time priority of a thread, as in sched(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadPolicy {
    /// `SCHED_OTHER`, `SCHED_FIFO` and so on, without `SCHED_RESET_ON_FORK`.
    pub policy: i32,
    /// 0 for policies that have none.
    pub priority: i32,
}

impl ThreadPolicy {
    /// That of the thread `tid`; 0 is the calling one. Fails if there is no such thread.
    pub fn of(tid: pid_t) -> io::Result<Self> {
        let mut param = sched_param { sched_priority: 0 };
        // SAFETY: a number is no pointer; the kernel refuses one that is not a thread's.
        let policy = Errno::result(unsafe { libc::sched_getscheduler(tid) })?;
        // SAFETY: as above, and the pointer is to a local of the right type.
        Errno::result(unsafe { libc::sched_getparam(tid, &raw mut param) })?;
        Ok(Self {
            policy: policy & !SCHED_RESET_ON_FORK,
            priority: param.sched_priority,
        })
    }

    /// Gives it to the thread `tid`; 0 is the calling one. To raise a priority needs `RLIMIT_RTPRIO` or
    /// `CAP_SYS_NICE`.
    pub fn apply(self, tid: pid_t) -> io::Result<()> {
        let param = sched_param {
            sched_priority: self.priority,
        };
        // SAFETY: a number is no pointer; the kernel refuses one that is not a thread's. The pointer is to a local of
        // the right type.
        Errno::result(unsafe { libc::sched_setscheduler(tid, self.policy, &raw const param) })?;
        Ok(())
    }
}

/// The time stamp counter of the CPU that this runs on.
pub fn time_stamp_counter() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction, and Linux lets processes use it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_bad_descriptor_makes_the_start_fail() {
        let mut command = Command::new("/bin/true");
        tie_to_thread(&mut command, &[RawFd::MAX]);
        let error = command.status().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn a_session_needs_a_terminal_on_standard_input() {
        let mut command = Command::new("/bin/true");
        command.stdin(Stdio::null());
        give_session_and_terminal(&mut command);
        let error = command.status().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
    }

    #[test]
    fn a_policy_is_read_as_it_was_set() {
        std::thread::spawn(|| {
            let batch = ThreadPolicy {
                policy: libc::SCHED_BATCH,
                priority: 0,
            };
            batch.apply(0).unwrap();
            assert_eq!(ThreadPolicy::of(0).unwrap(), batch);
        })
        .join()
        .unwrap();
        assert!(ThreadPolicy::of(pid_t::MAX).is_err());
    }

    #[test]
    fn the_counter_grows() {
        let before = time_stamp_counter();
        assert!(time_stamp_counter() >= before);
    }
}
