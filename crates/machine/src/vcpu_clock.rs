//! CPU time that the host has given to the vCPUs.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

/// CPU time of the threads that run vCPUs, since they started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VcpuCpuTime {
    /// Each vCPU is a thread of its own: by CPU number, in nanoseconds.
    Own(Vec<u64>),
    /// One thread takes all vCPUs in turns.
    Shared {
        /// CPU time of that thread, in nanoseconds.
        thread_ns: u64,
        /// Longest turn of one vCPU while others have work, in nanoseconds.
        turn_ns: u64,
    },
}

/// Reads the CPU time of a machine's vCPUs, from any thread, without asking the machine.
#[derive(Debug)]
pub struct VcpuClock {
    threads: Vec<File>,
    shared_turn: Option<Duration>,
}

impl VcpuClock {
    /// `tids` are the threads of process `pid` by the number of their vCPU. Where all are one, `turn` is how
    /// long it stays with a vCPU.
    pub(crate) fn open(pid: u32, tids: &[i32], turn: Duration) -> io::Result<Self> {
        let (first, rest) = tids
            .split_first()
            .ok_or_else(|| io::Error::other("the machine has no vCPUs"))?;
        let shared = !rest.is_empty() && rest.iter().all(|tid| tid == first);
        let tids = if shared { &tids[..1] } else { tids };
        let open = |tid| File::open(format!("/proc/{pid}/task/{tid}/schedstat"));
        Ok(Self {
            threads: tids.iter().map(open).collect::<io::Result<_>>()?,
            shared_turn: shared.then_some(turn),
        })
    }

    /// For how long each thread was runnable and did not run so far, in nanoseconds: of each vCPU, or of the one
    /// thread that takes all. Fails once the machine has ended.
    pub fn read_wait_ns(&self) -> io::Result<Vec<u64>> {
        self.threads.iter().map(wait_time_ns).collect()
    }

    /// The CPU time so far. Fails once the machine has ended.
    pub fn read(&self) -> io::Result<VcpuCpuTime> {
        let times = self.threads.iter().map(cpu_time_ns);
        let times = times.collect::<io::Result<Vec<_>>>()?;
        if times.iter().all(|&ns| ns == 0) {
            return Err(io::Error::other(
                "the host's kernel keeps no CPU times of threads (CONFIG_SCHED_INFO)",
            ));
        }
        Ok(match (self.shared_turn, times.first()) {
            (Some(turn), Some(&thread_ns)) => VcpuCpuTime::Shared {
                thread_ns,
                turn_ns: u64::try_from(turn.as_nanos()).unwrap_or(u64::MAX),
            },
            _ => VcpuCpuTime::Own(times),
        })
    }
}

/// The first field of `schedstat`: time on a CPU (Documentation/scheduler/sched-stats.rst).
fn cpu_time_ns(schedstat: &File) -> io::Result<u64> {
    field(schedstat, 0)
}

/// The second: time on a runqueue.
fn wait_time_ns(schedstat: &File) -> io::Result<u64> {
    field(schedstat, 1)
}

fn field(schedstat: &File, number: usize) -> io::Result<u64> {
    // Three numbers of at most 20 digits.
    let mut text = [0; 64];
    let len = schedstat.read_at(&mut text, 0)?;
    std::str::from_utf8(&text[..len])
        .ok()
        .and_then(|text| text.split_whitespace().nth(number)?.parse().ok())
        .ok_or_else(|| io::Error::other("a thread's schedstat is not understood"))
}

#[cfg(test)]
mod tests {
    use std::process;
    use std::time::Instant;

    use nix::unistd::gettid;

    use super::*;

    /// The CPU time of vCPUs that all run on this thread, which spins until it is more than `ns`.
    fn own_time(cpus: usize, ns: u64) -> VcpuCpuTime {
        let tids = vec![gettid().as_raw(); cpus];
        let clock = VcpuClock::open(process::id(), &tids, Duration::from_millis(100)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            // The host's kernel brings it up to date only now and then, the first time after some tick.
            match clock.read() {
                Ok(VcpuCpuTime::Own(times)) if times[0] > ns => return VcpuCpuTime::Own(times),
                Ok(time @ VcpuCpuTime::Shared { thread_ns, .. }) if thread_ns > ns => return time,
                _ => assert!(Instant::now() < deadline, "the time does not grow"),
            }
        }
    }

    #[test]
    fn the_cpu_time_of_a_busy_thread_grows() {
        let VcpuCpuTime::Own(times) = own_time(1, 1_000_000) else {
            panic!("one vCPU has its thread to itself");
        };
        assert_eq!(times.len(), 1);
        own_time(1, times[0] + 1_000_000);
    }

    #[test]
    fn vcpus_on_one_thread_take_turns() {
        let time = own_time(2, 0);
        assert!(
            matches!(time, VcpuCpuTime::Shared { turn_ns: 100_000_000, thread_ns } if thread_ns > 0),
            "{time:?}"
        );
    }

    #[test]
    fn threads_that_are_not_there_are_an_error() {
        assert!(VcpuClock::open(process::id(), &[], Duration::ZERO).is_err());
        assert!(VcpuClock::open(process::id(), &[0], Duration::ZERO).is_err());
    }
}
