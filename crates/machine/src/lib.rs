//! Virtual machines for tests.
//!
//! A [`MachineSpec`] says what the machine is: topology, memory, kernel, initramfs. An [`Engine`] runs it
//! and gives a [`Machine`]: guest memory, byte streams, control, and how it ended. Above this crate
//! nobody knows which engine runs.
//!
//! [`choose`] gives the engine for an [`EngineKind`]: `kvm`, our own microVM in this process, or `tcg`, QEMU
//! as a child process, emulating the CPU in software.

mod bounded;
mod choice;
mod cmdline;
mod console;
mod devices;
mod end_cell;
mod engine;
mod footprint;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod host_memory;
mod initrd;
mod kvm;
mod limits;
mod machine;
mod panic_latch;
mod performance;
mod readiness;
mod serial_watch;
mod spec;
mod tcg;
mod vcpu_clock;

pub use bounded::BoundedText;
pub use choice::{Chosen, EngineKind, choose};
pub use console::ConsoleLog;
pub use devices::*;
pub use engine::{Engine, EngineError, EngineOptions, LaunchError, MachineEvent, OnEvent, on_end};
pub use host_memory::{HostMemory, TouchedRam, touched_ram};
pub use ktstr_vmm::{ControlError, FirstRun, ServicePriority, VcpuRegisters};
pub use ktstr_vmm::{GuestRam as GuestMemory, NotRam as MemoryError};
pub use limits::memory_for_initrd_mib;
pub use machine::{End, Machine, Port, SetupStep, Startup, StopReason, Stopper};
pub use performance::{HUGE_PAGE_MIB, usable_host_cpus};
pub use spec::{BootKernel, InitrdPart, MIN_NODE_MEMORY_MIB, MachineSpec, SpecError};
pub use vcpu_clock::{VcpuClock, VcpuCpuTime};
