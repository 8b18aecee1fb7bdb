//! The virtio console: its PCI transport, its interrupts, its ports.

mod chain;
pub(crate) mod console;
#[cfg(any(test, feature = "fuzzing"))]
#[expect(
    clippy::unwrap_used,
    reason = "tests and fuzz targets report by a panic"
)]
pub(crate) mod driver;
mod identity;
pub(crate) mod msix;
pub(crate) mod pci;
pub(crate) mod port;
pub(crate) mod worker;

#[cfg(test)]
mod tests;
