//! x86-64: where things lie in guest-physical memory, what the CPUs say of themselves, and how a kernel
//! is entered.

pub(crate) mod apic_id;
pub(crate) mod boot;
pub(crate) mod cpuid;
pub(crate) mod layout;
pub(crate) mod msr;
pub(crate) mod paging;
pub(crate) mod regs;
pub(crate) mod zero_page;
