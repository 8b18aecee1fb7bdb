//! A read-only view of a running kernel, from its image and the guest's physical memory.
//!
//! [`btf`] tells layouts and [`symbols`] addresses, both from the kernel's image.

pub mod btf;
mod bytes;
pub mod symbols;
