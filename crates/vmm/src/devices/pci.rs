//! The PCI bus: the functions on it, and how an access finds its one.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::config_space::ConfigSpace;
use crate::arch::layout::{
    PAGE_BYTES, PCI_CONFIG_ADDRESS, PCI_CONFIG_DATA, PCI_ECAM, PCI_ECAM_BYTES,
};
use crate::lock::lock;

/// A function of a PCI device.
pub(crate) trait PciFunction: Send + fmt::Debug {
    /// A read of configuration space from byte `at` on. What a function does not have stays as it is in `data`.
    fn config_read(&self, at: usize, data: &mut [u8]);

    /// A write to it.
    fn config_write(&mut self, at: usize, data: &[u8]);

    /// Where its memory (BAR 0) begins; `None` while the guest has it disabled.
    fn bar(&self) -> Option<u64> {
        None
    }

    /// Size of that memory.
    fn bar_bytes(&self) -> u64 {
        0
    }

    /// A read `at` bytes into it.
    fn bar_read(&self, _at: u64, _data: &mut [u8]) {}

    /// A write to it.
    fn bar_write(&mut self, _at: u64, _data: &[u8]) {}
}

/// A function on the bus.
#[derive(Debug)]
struct Slot {
    function: Arc<Mutex<dyn PciFunction>>,
    /// What [`PciFunction::bar`] said last, so that an access finds its function without a lock of all.
    bar: AtomicU64,
    bar_bytes: u64,
}

/// No BAR is there: it would begin at the last byte of all addresses.
const NO_BAR: u64 = u64::MAX;

/// Bit 31 of the address register: the data ports are configuration space.
const ENABLE: u32 = 1 << 31;

/// Bus 0: a host bridge, and the functions that are added, each one function 0 of a device of its own.
#[derive(Debug)]
pub(crate) struct PciBus {
    /// The address register (PCI Local Bus 3.0, section 3.2.2.3.2).
    address: AtomicU32,
    /// By device number.
    slots: Vec<Slot>,
}

impl PciBus {
    pub(crate) fn new() -> Self {
        let mut bus = Self {
            address: AtomicU32::new(0),
            slots: Vec::new(),
        };
        bus.add(Arc::new(Mutex::new(HostBridge::new())));
        bus
    }

    /// Adds a function as the next device.
    pub(crate) fn add(&mut self, function: Arc<Mutex<dyn PciFunction>>) {
        let (bar, bar_bytes) = {
            let function = lock(&function);
            (function.bar(), function.bar_bytes())
        };
        self.slots.push(Slot {
            function,
            bar: AtomicU64::new(bar.unwrap_or(NO_BAR)),
            bar_bytes,
        });
    }

    pub(super) fn has_port(port: u16) -> bool {
        (PCI_CONFIG_ADDRESS..PCI_CONFIG_DATA + 4).contains(&port)
    }

    pub(super) fn port_read(&self, port: u16, data: &mut [u8]) {
        if port == PCI_CONFIG_ADDRESS && data.len() == 4 {
            data.copy_from_slice(&self.address.load(Ordering::Relaxed).to_le_bytes());
        }
        if let Some((device, at)) = self.selected(port, data.len()) {
            self.config_read(device, at, data);
        }
    }

    pub(super) fn port_write(&self, port: u16, data: &[u8]) {
        if let (PCI_CONFIG_ADDRESS, &[a, b, c, d]) = (port, data) {
            let address = u32::from_le_bytes([a, b, c, d]);
            self.address.store(address, Ordering::Relaxed);
        }
        if let Some((device, at)) = self.selected(port, data.len()) {
            self.config_write(device, at, data);
        }
    }

    /// A read of an address of the bus: configuration space in memory, or a function's BAR.
    pub(super) fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        if let Some(into) = in_ecam(gpa) {
            if let Some((device, at)) = in_config(into) {
                self.config_read(device, at, data);
            }
        } else if let Some((slot, at)) = self.slot_at(gpa) {
            lock(&slot.function).bar_read(at, data);
        }
    }

    /// A write to one.
    pub(super) fn mmio_write(&self, gpa: u64, data: &[u8]) {
        if let Some(into) = in_ecam(gpa) {
            if let Some((device, at)) = in_config(into) {
                self.config_write(device, at, data);
            }
        } else if let Some((slot, at)) = self.slot_at(gpa) {
            lock(&slot.function).bar_write(at, data);
        }
    }

    fn config_read(&self, device: usize, at: usize, data: &mut [u8]) {
        if let Some(slot) = self.slots.get(device) {
            // Beyond the first 256 bytes a function has nothing.
            data.fill(0);
            lock(&slot.function).config_read(at, data);
        }
    }

    fn config_write(&self, device: usize, at: usize, data: &[u8]) {
        if let Some(slot) = self.slots.get(device) {
            let mut function = lock(&slot.function);
            function.config_write(at, data);
            let bar = function.bar().unwrap_or(NO_BAR);
            slot.bar.store(bar, Ordering::Relaxed);
        }
    }

    /// The function whose BAR `gpa` is in, and how far.
    fn slot_at(&self, gpa: u64) -> Option<(&Slot, u64)> {
        self.slots.iter().find_map(|slot| {
            let at = gpa.checked_sub(slot.bar.load(Ordering::Relaxed))?;
            (at < slot.bar_bytes).then_some((slot, at))
        })
    }

    /// The device and offset that an access to a data port means; `None` if it means nothing.
    fn selected(&self, port: u16, len: usize) -> Option<(usize, usize)> {
        let into = usize::from(port.checked_sub(PCI_CONFIG_DATA)?);
        let address = self.address.load(Ordering::Relaxed);
        let (bus, device) = (address >> 16 & 0xff, address >> 11 & 0x1f);
        let function = address >> 8 & 7;
        let meant = address & ENABLE != 0 && bus == 0 && function == 0 && into + len <= 4;
        let register = usize::try_from(address & 0xfc).ok()?;
        let device = usize::try_from(device).ok()?;
        meant.then_some((device, register + into))
    }
}

/// How far `gpa` is into configuration space in memory; `None` if it isn't in it.
fn in_ecam(gpa: u64) -> Option<u64> {
    gpa.checked_sub(PCI_ECAM)
        .filter(|into| *into < PCI_ECAM_BYTES)
}

/// The device and the offset in its configuration space; `None` for the functions that no device has.
fn in_config(into: u64) -> Option<(usize, usize)> {
    let function = into / PAGE_BYTES;
    let at = usize::try_from(into % PAGE_BYTES).ok()?;
    let device = usize::try_from(function / 8).ok()?;
    function.is_multiple_of(8).then_some((device, at))
}

/// The host bridge: nothing but an identity.
#[derive(Debug)]
struct HostBridge(ConfigSpace);

impl HostBridge {
    fn new() -> Self {
        /// Red Hat's vendor id and its host bridge, a device that has no driver and needs none.
        const ID: [u8; 4] = [0x36, 0x1b, 0x08, 0x00];
        /// Class: host bridge (PCI Code and ID Assignment, section 1.7).
        const CLASS: [u8; 4] = [0, 0, 0x00, 0x06];
        let mut space = ConfigSpace::new();
        space.set(0, &ID);
        space.set(8, &CLASS);
        Self(space)
    }
}

impl PciFunction for HostBridge {
    fn config_read(&self, at: usize, data: &mut [u8]) {
        self.0.read(at, data);
    }

    fn config_write(&mut self, at: usize, data: &[u8]) {
        self.0.write(at, data);
    }
}
