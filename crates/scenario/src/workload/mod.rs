//! Load: processes or threads that do a certain kind of work until told to stop, and report on it.

mod affinity;
mod body;
mod config;
mod control;
mod error;
mod gate;
mod handle;
mod histogram;
mod link;
mod process;
mod reading;
mod sched_policy;
mod seat;
mod shared;
mod spawn;
mod syscalls;
mod telemetry;
mod types;
mod witness;
mod worker;

pub use affinity::{AffinityError, AffinityIntent};
pub use config::{WorkSpec, WorkloadConfig};
pub use control::WorkerControl;
pub use error::WorkloadError;
pub use gate::Gate;
pub use handle::WorkloadHandle;
pub(crate) use reading::Reading;
pub use sched_policy::SchedPolicy;
pub(crate) use telemetry::now_ns as monotonic_ns;
pub use types::WorkType;
pub use worker::{CloneMode, in_worker};
