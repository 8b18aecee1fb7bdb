//! Why a workload could not be set up.

use std::io;

use nix::errno::Errno;

/// Why a workload could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkloadError {
    /// No workers.
    #[error("a workload of 0 workers: ask for at least one")]
    NoWorkers,
    /// The workers can't be grouped.
    #[error(
        "{workers} workers of {work_type}, which works in groups of {group_size}: ask for a multiple of \
         {group_size}"
    )]
    GroupSize {
        /// The work type.
        work_type: String,
        /// Workers asked for.
        workers: usize,
        /// Workers in a group.
        group_size: usize,
    },
    /// No memory to share with workers.
    #[error("can't map memory to share with the workers")]
    SharedMemory(#[source] Errno),
    /// No pipe.
    #[error("can't make a pipe between two workers")]
    Pipe(#[source] Errno),
    /// No process.
    #[error("can't fork worker {index}")]
    Fork {
        /// Which worker, from 0.
        index: usize,
        /// Why.
        source: Errno,
    },
    /// No thread.
    #[error("can't start a thread for worker {index}")]
    Thread {
        /// Which worker, from 0.
        index: usize,
        /// Why.
        source: io::Error,
    },
    /// A worker thread did not begin.
    #[error(
        "worker thread {index} did not begin within {waited_ms} ms: the machine is overloaded or stuck"
    )]
    NotBegun {
        /// Which worker, from 0.
        index: usize,
        /// How long it was waited for.
        waited_ms: u128,
    },
    /// The kernel refused the policy or the priority.
    #[error("can't give worker {tid} the scheduling policy {policy}")]
    Policy {
        /// The worker.
        tid: i32,
        /// The policy.
        policy: String,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused the CPUs.
    #[error("can't bind worker {tid} to CPUs {cpus} (are they within its cgroup's cpuset?)")]
    Affinity {
        /// The worker.
        tid: i32,
        /// The CPUs.
        cpus: String,
        /// Why.
        source: io::Error,
    },
    /// There is no such worker.
    #[error("there is no worker {index}: the workload has {workers}")]
    NoSuchWorker {
        /// The worker asked for, from 0.
        index: usize,
        /// How many there are.
        workers: usize,
    },
    /// Threads are not processes.
    #[error(
        "these workers are threads of the harness: writing one to cgroup.procs would move the harness \
         itself; place them by `worker_tids` in a threaded cgroup"
    )]
    ThreadsNotProcesses,
    /// A parameter is outside what the kernel takes.
    #[error("{what} is {value}, but must be from {min} to {max}")]
    OutOfRange {
        /// The parameter.
        what: &'static str,
        /// Its value.
        value: i64,
        /// Least allowed.
        min: i64,
        /// Largest allowed.
        max: i64,
    },
}
