//! Load: processes or threads that do a certain kind of work until told to stop, and report on it.

mod affinity;
mod bursty;
mod control;
mod error;
mod gate;
mod handle;
mod histogram;
mod link;
mod pair_futex;
mod pair_pipe;
mod process;
mod sched_policy;
mod seat;
mod shared;
mod spawn;
mod spin;
mod syscalls;
mod telemetry;
mod witness;
mod work_type;
mod worker;

pub use affinity::{AffinityError, AffinityIntent};
pub use control::WorkerControl;
pub use error::WorkloadError;
pub use gate::Gate;
pub use handle::{WorkSpec, WorkloadConfig, WorkloadHandle};
pub use sched_policy::SchedPolicy;
pub use work_type::WorkType;
pub use worker::{CloneMode, in_worker};
