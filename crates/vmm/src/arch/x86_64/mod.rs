//! x86-64: the layout of guest-physical memory, CPUID, how a kernel is entered, and what KVM has for this
//! architecture alone.

pub(crate) mod boot;
pub(crate) mod cpu_ids;
pub(crate) mod cpuid;
pub(crate) mod io_apic;
pub(crate) mod layout;
mod msr;
mod paging;
pub(crate) mod power;
pub(crate) mod probe_guest;
pub(crate) mod ram;
pub(crate) mod registers;
mod regs;
pub(crate) mod vcpu;
pub(crate) mod vm;
mod zero_page;
