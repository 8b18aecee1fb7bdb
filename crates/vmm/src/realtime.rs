//! Threads that go before all others, on host CPUs of their own.
//!
//! A vCPU's thread has `SCHED_FIFO` priority 1 and one host CPU. What serves the machine (its console, its
//! watchdog, who waits for its end) has priority 2, so that a vCPU that spins on the only CPU can't starve it.

use std::fs;
use std::io;
use std::marker::PhantomData;

use ktstr_sys::ThreadPolicy;
use nix::libc::{SCHED_FIFO, pid_t};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, gettid};

const VCPU: ThreadPolicy = ThreadPolicy {
    policy: SCHED_FIFO,
    priority: 1,
};
const SERVICE: ThreadPolicy = ThreadPolicy {
    policy: SCHED_FIFO,
    priority: 2,
};

/// Where a vCPU's thread runs, as the host's kernel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuPlacement {
    /// `Cpus_allowed_list` of the thread.
    pub host_cpus: String,
    /// Its `SCHED_FIFO` priority; 0 for any other policy.
    pub fifo_priority: u32,
}

/// While it lives, threads of this process have the priority of those that serve a machine. The threads that they
/// start inherit it.
#[derive(Debug)]
pub struct ServicePriority {
    /// What each thread had before; 0 for the calling one.
    before: Vec<(pid_t, ThreadPolicy)>,
    // The policy of the calling thread is among them.
    _thread: PhantomData<*const ()>,
}

impl ServicePriority {
    /// For the calling thread. Fails where the process may not do that: see `RLIMIT_RTPRIO` and `CAP_SYS_NICE` in
    /// sched(7).
    pub fn take() -> io::Result<Self> {
        let before = ThreadPolicy::of(0)?;
        SERVICE.apply(0)?;
        Ok(Self {
            before: vec![(0, before)],
            _thread: PhantomData,
        })
    }

    /// For all threads of this process. On a host whose only CPU is a vCPU's, a thread without the priority is not
    /// run while the vCPU spins, or for 50 ms of each second (`fair_server` in kernel/sched/deadline.c). What it
    /// holds then (the lock of the process's memory map, one of the allocator's) is waited for by all others.
    pub fn take_for_process() -> io::Result<Self> {
        let mut taken = Self::take()?;
        let own = gettid().as_raw();
        for thread in fs::read_dir("/proc/self/task")? {
            let name = thread?.file_name();
            let tid = name.to_str().and_then(|name| name.parse().ok());
            let Some(tid) = tid.filter(|&tid| tid != own) else {
                continue;
            };
            // A thread may end while this looks.
            if let Ok(before) = ThreadPolicy::of(tid)
                && before.policy != SCHED_FIFO
                && SERVICE.apply(tid).is_ok()
            {
                taken.before.push((tid, before));
            }
        }
        Ok(taken)
    }
}

impl Drop for ServicePriority {
    fn drop(&mut self) {
        for (tid, before) in &self.before {
            // Lowering priority needs no privilege. A thread that has ended needs none.
            let _ = before.apply(*tid);
        }
    }
}

/// Gives the calling thread `host_cpu` and the priority of a vCPU, and asks the kernel whether it is so.
pub(crate) fn place_vcpu(host_cpu: u32) -> io::Result<VcpuPlacement> {
    let mut cpus = CpuSet::new();
    cpus.set(host_cpu as usize)?;
    sched_setaffinity(Pid::from_raw(0), &cpus)?;
    VCPU.apply(0)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Held by tests that look at or change the policy of threads of this process.
    static POLICY: std::sync::Mutex<()> = std::sync::Mutex::new(());

    /// A thread of the same process that was not raised held up the monitor for most of a second, on a host with one
    /// CPU.
    #[test]
    fn fault_c2_all_threads_of_a_process_are_raised_and_given_back() {
        let _alone = POLICY.lock().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            tell.send(gettid()).unwrap();
            let _ = ended.recv();
        });
        let tid = told.recv().unwrap();
        let priority = || {
            let stat = fs::read_to_string(format!("/proc/self/task/{tid}/stat"));
            fifo_priority(&stat.unwrap())
        };
        assert_eq!(priority(), Some(0));
        // On a thread of its own: others of these tests look at their policy.
        let raised = std::thread::scope(|scope| {
            let take = scope.spawn(|| {
                let taken = ServicePriority::take_for_process();
                (taken.is_ok(), priority())
            });
            take.join().unwrap()
        });
        // Where the process may not do that, nothing is changed.
        let (may, during) = raised;
        assert_eq!(during, Some(if may { 2 } else { 0 }));
        assert_eq!(priority(), Some(0));
        drop(end);
        other.join().unwrap();
    }

    #[test]
    fn the_policy_is_read_after_a_name_with_anything_in_it() {
        let stat = |priority: u32, policy: i32| {
            let between = "0 ".repeat(36);
            format!("71 (a) b) S {between}{priority} {policy} 0 0")
        };
        assert_eq!(fifo_priority(&stat(1, 1)), Some(1));
        assert_eq!(fifo_priority(&stat(9, 2)), Some(0), "SCHED_RR");
        assert_eq!(fifo_priority("71 (a) S 0 0"), None);
        let _alone = POLICY.lock().unwrap();
        let own = fs::read_to_string("/proc/thread-self/stat").unwrap();
        assert_eq!(fifo_priority(&own), Some(0));
    }
}
