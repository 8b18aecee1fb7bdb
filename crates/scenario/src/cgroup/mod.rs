//! Cgroups of a test (cgroup v2, Documentation/admin-guide/cgroup-v2.rst).
//!
//! The manager keeps two trees under the hierarchy's root. Ordinary cgroups are made in the *workload
//! root* (`/ktstr`), threaded ones in a threaded tree beside it (`/ktstr.threads`). The harness itself
//! stays in the real root, which is the only place that may hold processes next to controlled children,
//! and the only one whose threads may be placed in a threaded tree while ordinary cgroups exist.

mod account;
mod entry;
mod group;
mod kind;
mod knob;
mod ledger;
mod limits;
mod manager;
mod name;
mod removal;
mod tasks;

pub use account::AccountWindow;
pub use entry::CgroupError;
pub use group::CgroupGroup;
pub use kind::CgroupKind;
pub use knob::{CpuMax, Knob, Limit};
pub use limits::LiftedLimits;
pub use manager::{CgroupManager, CgroupOps};
