//! Devices that a machine has only when it is asked for them, on either engine.
//!
//! To add one: a file here with a type that implements [`Device`], and its lines below.

mod disk;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ktstr_declaration::Boot;
use ktstr_vmm::VirtioDevice;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use disk::Emulated as EmulatedDisk;
pub use disk::{Disk, MAX_DISK_MIB};

/// A device as both engines make it. Both give the guest the same virtio device.
pub trait Device: fmt::Debug + Send + Sync {
    /// Kernel modules that drive it, where they aren't built in.
    fn kernel_modules(&self) -> &'static [&'static str];

    /// Our own, for a microVM's bus.
    fn emulated(&self) -> io::Result<Box<dyn VirtioDevice>>;

    /// QEMU's. `id` is a name for it that no other device of the machine has.
    fn qemu(&self, id: &str) -> io::Result<QemuDevice>;
}

/// The devices that a test asks for.
pub fn devices(boot: &Boot) -> Vec<Arc<dyn Device>> {
    let disk = boot.disk_mib.map(|len_mib| Arc::new(Disk { len_mib }) as _);
    disk.into_iter().collect()
}

/// What makes QEMU have a device.
#[derive(Debug)]
pub struct QemuDevice {
    /// Options with their values, in order.
    pub args: Vec<(&'static str, String)>,
    /// Files that the options name by their numbers: QEMU inherits them.
    pub files: Vec<OwnedFd>,
}
