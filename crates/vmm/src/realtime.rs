//! Threads that go before all others, on host CPUs of their own.
//!
//! A vCPU's thread has `SCHED_FIFO` priority 1 and one host CPU. What serves the machine (its console, its
//! watchdog, who waits for its end) has priority 2, so that a vCPU that spins on the only CPU can't starve it.
#![expect(
    unsafe_code,
    reason = "the scheduling policy of a thread has no safe wrapper"
)]

use std::fs;
use std::io;
use std::marker::PhantomData;

use nix::libc::{SCHED_FIFO, SCHED_RESET_ON_FORK, sched_param};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

const VCPU_PRIORITY: i32 = 1;
const SERVICE_PRIORITY: i32 = 2;

/// Where a vCPU's thread runs, as the host's kernel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuPlacement {
    /// `Cpus_allowed_list` of the thread.
    pub host_cpus: String,
    /// Its `SCHED_FIFO` priority; 0 for any other policy.
    pub fifo_priority: u32,
}

/// While it lives, the calling thread has the priority of those that serve a machine. The threads it starts
/// inherit it.
#[derive(Debug)]
pub struct ServicePriority {
    policy: i32,
    priority: i32,
    // The policy is that of one thread.
    _thread: PhantomData<*const ()>,
}

impl ServicePriority {
    /// Fails where the process may not do that: see `RLIMIT_RTPRIO` and `CAP_SYS_NICE` in sched(7).
    pub fn take() -> io::Result<Self> {
        let mut before = sched_param { sched_priority: 0 };
        // SAFETY: 0 means the calling thread, and the pointer is to a local of the right type.
        let policy = unsafe { nix::libc::sched_getscheduler(0) };
        // SAFETY: as above.
        let got = unsafe { nix::libc::sched_getparam(0, &raw mut before) };
        if policy < 0 || got < 0 {
            return Err(io::Error::last_os_error());
        }
        set_policy(SCHED_FIFO, SERVICE_PRIORITY)?;
        Ok(Self {
            policy: policy & !SCHED_RESET_ON_FORK,
            priority: before.sched_priority,
            _thread: PhantomData,
        })
    }
}

impl Drop for ServicePriority {
    fn drop(&mut self) {
        // To give up a priority needs no right.
        let _ = set_policy(self.policy, self.priority);
    }
}

/// Gives the calling thread `host_cpu` and the priority of a vCPU, and asks the kernel whether it is so.
pub(crate) fn place_vcpu(host_cpu: u32) -> io::Result<VcpuPlacement> {
    let mut cpus = CpuSet::new();
    cpus.set(host_cpu as usize)?;
    sched_setaffinity(Pid::from_raw(0), &cpus)?;
    set_policy(SCHED_FIFO, VCPU_PRIORITY)?;
    let unreadable = || io::Error::other("/proc/thread-self has an unknown form");
    let status = fs::read_to_string("/proc/thread-self/status")?;
    let allowed = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let stat = fs::read_to_string("/proc/thread-self/stat")?;
    Ok(VcpuPlacement {
        host_cpus: allowed.ok_or_else(unreadable)?.trim().to_owned(),
        fifo_priority: fifo_priority(&stat).ok_or_else(unreadable)?,
    })
}

/// From `/proc/PID/stat`: fields 40 `rt_priority` and 41 `policy`, counted from 1 (proc_pid_stat(5)).
fn fifo_priority(stat: &str) -> Option<u32> {
    // The name, field 2, may have anything in it.
    let (_, from_third) = stat.rsplit_once(')')?;
    let mut fields = from_third.split_whitespace().skip(40 - 3);
    let priority = fields.next()?.parse().ok()?;
    let policy: i32 = fields.next()?.parse().ok()?;
    Some(if policy == SCHED_FIFO { priority } else { 0 })
}

fn set_policy(policy: i32, priority: i32) -> io::Result<()> {
    let param = sched_param {
        sched_priority: priority,
    };
    // SAFETY: 0 means the calling thread, and the pointer is to a local of the right type.
    let result = unsafe { nix::libc::sched_setscheduler(0, policy, &raw const param) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_read_after_a_name_with_anything_in_it() {
        let stat = |priority: u32, policy: i32| {
            let between = "0 ".repeat(36);
            format!("71 (a) b) S {between}{priority} {policy} 0 0")
        };
        assert_eq!(fifo_priority(&stat(1, 1)), Some(1));
        assert_eq!(fifo_priority(&stat(9, 2)), Some(0), "SCHED_RR");
        assert_eq!(fifo_priority("71 (a) S 0 0"), None);
        let own = fs::read_to_string("/proc/thread-self/stat").unwrap();
        assert_eq!(fifo_priority(&own), Some(0));
    }
}
