//! The virtio console: its PCI transport, its interrupts, its ports.

pub(crate) mod console;
mod identity;
pub(crate) mod msix;
pub(crate) mod pci;
pub(crate) mod port;
pub(crate) mod worker;

#[cfg(test)]
mod tests;
