//! What a running kernel knows, one file a subsystem.
//!
//! Layouts are looked up once, when a reader is made; a member that this kernel lacks is `None` in what is
//! read. Readers are cheap to use and keep nothing of what they read.

mod budgeted;
mod cpu_mask;
mod dispatch_queue;
mod list;
mod percpu;
pub(crate) mod record;
mod runqueue;
mod sched_domain;
mod sched_ext;
mod task;

use std::sync::Arc;

pub(crate) use budgeted::BudgetedMemory;
pub use cpu_mask::CpuMask;
pub use dispatch_queue::{DispatchQueue, DispatchQueues, DsqKind};
pub use percpu::PerCpu;
pub use runqueue::{Runqueue, RunqueueSchedstat, Runqueues, ScxRunqueue};
pub use sched_domain::{SchedDomain, SchedDomains};
pub use sched_ext::{ExitInfo, SchedExt, SchedExtState};
pub use task::{SchedClass, ScxTask, Task, Tasks};

use crate::btf::{BtfError, LayoutError, TypeError};
use crate::budget::BudgetExhausted;
use crate::image::KernelImage;
use crate::memory::{AttachError, Evidence, KernelMemory, MemoryError, PhysRead};

/// Why something of a kernel can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Its memory can't be read.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// This kernel has no such type or member.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// What was read from memory is not type information.
    #[error("type information in the kernel's memory can't be used")]
    Btf(#[from] BtfError),
    /// Type information that was read from memory contradicts itself.
    #[error("type information in the kernel's memory can't be used")]
    Type(#[from] TypeError),
    /// This kernel has no such variable.
    #[error(
        "this kernel has no symbol `{name}`: it was built without it, or is too old or too new"
    )]
    NoSymbol {
        /// The variable's name, or those it had in the course of time.
        name: &'static str,
    },
    /// It changed while it was read, each time. Try again later; it says nothing about the kernel.
    #[error("{what} changed while it was read")]
    Unstable { what: &'static str },
    /// There is more of it than a kernel can have. Either it changed while it was read, or it is not a kernel's.
    #[error("{what} has more than {limit} entries")]
    TooMany {
        what: &'static str,
        /// What is believed at most.
        limit: usize,
    },
    /// The look at the guest costs more than it may. It says nothing about the kernel.
    #[error(transparent)]
    Budget(#[from] BudgetExhausted),
    /// It is in a form that can't be read.
    #[error("{what}")]
    Unsupported {
        /// What can't be read, and why.
        what: &'static str,
    },
}

/// How often something that changes while it is read is tried again.
const ATTEMPTS: usize = 4;

/// A running kernel: its image and its memory.
#[derive(Clone, Debug)]
pub struct Kernel {
    image: Arc<KernelImage>,
    memory: KernelMemory,
}

impl Kernel {
    /// Finds the kernel of `image` in guest memory. Fails until that kernel has set up its memory; it can be
    /// tried again.
    pub fn attach(
        phys: Arc<dyn PhysRead + Send + Sync>,
        image: Arc<KernelImage>,
        evidence: &Evidence,
    ) -> Result<Self, AttachError> {
        let memory = KernelMemory::attach(phys, &image, evidence)?;
        Ok(Self { image, memory })
    }

    pub fn image(&self) -> &KernelImage {
        &self.image
    }

    pub fn memory(&self) -> &KernelMemory {
        &self.memory
    }

    /// The address of a variable or function in the running kernel.
    pub fn symbol(&self, name: &'static str) -> Result<u64, ReadError> {
        self.optional_symbol(name)
            .ok_or(ReadError::NoSymbol { name })
    }

    /// As [`Self::symbol`], or nothing if this kernel has none.
    pub fn optional_symbol(&self, name: &str) -> Option<u64> {
        let address = self.image.symbols.find(name)?;
        Some(self.memory.kaslr().slid(address))
    }

    /// The symbol that an address of the running kernel lies in, such as a vCPU's instruction pointer.
    /// Addresses outside the image (modules, BPF programs, user space) have none.
    pub fn place(&self, address: u64) -> Option<crate::symbols::Place> {
        self.memory.kaslr().image_gpa(address)?;
        let linked = address.wrapping_sub(self.memory.kaslr().slide);
        self.image.symbols.place(linked)
    }
}

/// Reads what changes until it was read in one piece, a few times. Memory that can't be read is tried again
/// too: what led there may have been freed.
pub(crate) fn stable<T>(mut read: impl FnMut() -> Result<T, ReadError>) -> Result<T, ReadError> {
    for _ in 1..ATTEMPTS {
        match read() {
            Err(ReadError::Unstable { .. } | ReadError::Memory(_)) => {}
            result => return result,
        }
    }
    read()
}
