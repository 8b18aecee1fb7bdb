//! A read-only view of a running kernel, from its image and the guest's physical memory.
//!
//! [`btf`] tells layouts and [`symbols`] addresses, both from the kernel's image ([`KernelImage`]). [`memory`]
//! reads a running kernel's memory by virtual address, over a reader of guest-physical memory that the caller
//! has ([`memory::PhysRead`]). [`kernel`] reads what is there: runqueues, tasks,
//! sched_ext; [`bpf`] maps and programs.
//!
//! A guest's memory is read while it runs, and nothing in it is trusted: all that a guest can make long is read
//! within a [`Budget`], and what can't be read is an error.

pub mod bpf;
pub mod btf;
mod budget;
mod bytes;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod image;
pub mod kernel;
pub mod memory;
pub mod symbols;

// The synthetic kernels of the tests call it by its name.
#[cfg(any(test, feature = "fuzzing"))]
extern crate self as ktstr_introspect;

pub use budget::{Budget, BudgetExhausted, BudgetLimits};
pub use image::{ImageError, KernelImage};
