//! The queue for host CPUs and memory: many test processes start at once, and the machines that run keep no more
//! host CPUs busy than there are, and have no more guest RAM together than the host has available.
//!
//! ```text
//! <folder>/door         held (flock) for the moment in which the queue is read or changed
//! <folder>/N.waiting    held by a process in the queue, from when it joins until its machine may start
//! <folder>/N.running    held from then until its machine is gone
//! ```
//!
//! Only locks count, and the kernel drops those of a process that dies, however it dies. A file that nobody
//! has locked means nothing; whoever comes across it removes it.
//!
//! The queue is first come, first served: a small machine does not pass a large one, which would else never
//! find enough CPUs free at once. A machine with more CPUs than the limit runs alone.

mod cap;
mod claim;
mod entry;
mod folder;
mod memory;
mod queue;
mod ticket;
mod ticket_file;
mod waiting;

pub use cap::{CpuCap, CpuCapError};
pub use claim::Claim;
pub use entry::{Entry, Place};
pub use memory::Lack;
pub use queue::CpuQueue;
pub use ticket::{Admission, Permit, Ticket};
pub use waiting::{QueueError, Waiting};
