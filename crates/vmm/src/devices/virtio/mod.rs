//! Virtio devices: what one is to its transport, the PCI transport, and the devices.

pub(crate) mod bus;
pub(crate) mod chain;
pub(crate) mod console;
pub(crate) mod device;
#[cfg(any(test, feature = "fuzzing"))]
#[expect(
    clippy::unwrap_used,
    reason = "tests and fuzz targets report by a panic"
)]
pub(crate) mod driver;
mod identity;
mod msix;
pub(crate) mod pci;
mod port;
pub(crate) mod queue;
pub(crate) mod worker;

#[cfg(test)]
mod tests;
