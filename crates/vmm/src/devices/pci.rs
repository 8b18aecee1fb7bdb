//! The PCI host bridge: configuration access through ports and through memory, and two devices on one bus.

use crate::arch::layout::{PAGE_BYTES, PCI_CONFIG_ADDRESS, PCI_CONFIG_DATA};

use super::virtio::pci::VirtioPci;

/// Bytes of a device's configuration space that the ports reach.
pub(crate) const CONFIG_BYTES: usize = 256;

/// Bit 31 of the address register: the data ports are configuration space.
const ENABLE: u32 = 1 << 31;

/// Device number of the host bridge.
const BRIDGE: u32 = 0;
/// Device number of the virtio console.
const CONSOLE: u32 = 1;

/// Red Hat's vendor id and its host bridge, a device that has no driver and needs none.
const BRIDGE_ID: [u8; 4] = [0x36, 0x1b, 0x08, 0x00];
/// Class: host bridge (PCI Code and ID Assignment, section 1.7).
const BRIDGE_CLASS: [u8; 4] = [0, 0, 0x00, 0x06];

/// A configuration space: what it holds, and which bits of it the guest may change.
#[derive(Clone, Debug)]
pub(crate) struct ConfigSpace {
    bytes: [u8; CONFIG_BYTES],
    writable: [u8; CONFIG_BYTES],
}

impl ConfigSpace {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [0; CONFIG_BYTES],
            writable: [0; CONFIG_BYTES],
        }
    }

    /// Sets what is at `at`. Used only for constants, which fit.
    pub(crate) const fn set(&mut self, at: usize, bytes: &[u8]) {
        self.bytes
            .split_at_mut(at)
            .1
            .split_at_mut(bytes.len())
            .0
            .copy_from_slice(bytes);
    }

    /// Lets the guest change the bits of `mask` at `at`. As [`Self::set`].
    pub(crate) const fn allow(&mut self, at: usize, mask: &[u8]) {
        self.writable
            .split_at_mut(at)
            .1
            .split_at_mut(mask.len())
            .0
            .copy_from_slice(mask);
    }

    /// The little-endian word at `at`, which is a constant.
    pub(crate) fn u32_at(&self, at: usize) -> u32 {
        let mut word = [0; 4];
        word.copy_from_slice(&self.bytes[at..at + 4]);
        u32::from_le_bytes(word)
    }

    pub(crate) fn read(&self, at: usize, data: &mut [u8]) {
        for (byte, held) in data.iter_mut().zip(self.bytes.iter().skip(at)) {
            *byte = *held;
        }
    }

    pub(crate) fn write(&mut self, at: usize, data: &[u8]) {
        let held = self.bytes.iter_mut().zip(&self.writable).skip(at);
        for (byte, (held, mask)) in data.iter().zip(held) {
            *held = *held & !mask | byte & mask;
        }
    }
}

/// The ports (PCI Local Bus 3.0, section 3.2.2.3.2), and the bridge itself.
#[derive(Debug)]
pub(crate) struct PciBus {
    address: u32,
    bridge: ConfigSpace,
}

impl PciBus {
    pub(crate) fn new() -> Self {
        let mut bridge = ConfigSpace::new();
        bridge.set(0, &BRIDGE_ID);
        bridge.set(8, &BRIDGE_CLASS);
        Self { address: 0, bridge }
    }

    pub(super) fn has_port(port: u16) -> bool {
        (PCI_CONFIG_ADDRESS..PCI_CONFIG_DATA + 4).contains(&port)
    }

    pub(super) fn port_read(&self, console: &VirtioPci, port: u16, data: &mut [u8]) {
        if port == PCI_CONFIG_ADDRESS && data.len() == 4 {
            data.copy_from_slice(&self.address.to_le_bytes());
        }
        if let Some((device, at)) = self.selected(port, data.len()) {
            self.read(console, device, at, data);
        }
    }

    pub(super) fn port_write(&mut self, console: &mut VirtioPci, port: u16, data: &[u8]) {
        if let (PCI_CONFIG_ADDRESS, &[a, b, c, d]) = (port, data) {
            self.address = u32::from_le_bytes([a, b, c, d]);
        }
        if let Some((CONSOLE, at)) = self.selected(port, data.len()) {
            console.config_write(at, data);
        }
    }

    /// A read of configuration space in memory, `into` bytes into it.
    pub(super) fn ecam_read(&self, console: &VirtioPci, into: u64, data: &mut [u8]) {
        if let Some((device, at)) = in_ecam(into) {
            self.read(console, device, at, data);
        }
    }

    /// A write to it.
    pub(super) fn ecam_write(console: &mut VirtioPci, into: u64, data: &[u8]) {
        if let Some((CONSOLE, at)) = in_ecam(into) {
            console.config_write(at, data);
        }
    }

    fn read(&self, console: &VirtioPci, device: u32, at: usize, data: &mut [u8]) {
        if [BRIDGE, CONSOLE].contains(&device) {
            // Beyond the first 256 bytes a device has nothing.
            data.fill(0);
        }
        match device {
            BRIDGE => self.bridge.read(at, data),
            CONSOLE => console.config_read(at, data),
            _ => {}
        }
    }

    /// The device and offset that an access to a data port means; `None` if it means nothing.
    fn selected(&self, port: u16, len: usize) -> Option<(u32, usize)> {
        let into = usize::from(port.checked_sub(PCI_CONFIG_DATA)?);
        let (bus, device) = (self.address >> 16 & 0xff, self.address >> 11 & 0x1f);
        let function = self.address >> 8 & 7;
        let meant = self.address & ENABLE != 0 && bus == 0 && function == 0 && into + len <= 4;
        let register = usize::try_from(self.address & 0xfc).ok()?;
        meant.then_some((device, register + into))
    }
}

/// The device and the offset in its configuration space; `None` for the functions that no device has.
fn in_ecam(into: u64) -> Option<(u32, usize)> {
    let function = into / PAGE_BYTES;
    let at = usize::try_from(into % PAGE_BYTES).ok()?;
    let device = u32::try_from(function / 8).ok()?;
    function.is_multiple_of(8).then_some((device, at))
}
