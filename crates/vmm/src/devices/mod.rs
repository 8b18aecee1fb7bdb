//! The devices, and which of them answers at a port or address.

mod config_space;
pub(crate) mod pci;
pub(crate) mod serial;
pub(crate) mod virtio;

use std::sync::Mutex;

use crate::arch::io_apic::IoApic;
use crate::arch::layout::{APIC_BYTES, COM_PORTS, COM1_PORT, COM2_PORT, IO_APIC};
use crate::arch::power;
use crate::end::End;
use crate::lock::lock;
use pci::PciBus;
use serial::SerialPort;

/// What a read gives where no device is.
const NOTHING: u8 = 0xff;

/// All devices of a machine, each behind a lock of its own. Every call is short and returns; none waits for the
/// guest.
#[derive(Debug)]
pub(crate) struct Devices {
    pub(crate) com1: Mutex<SerialPort>,
    pub(crate) com2: Mutex<SerialPort>,
    pub(crate) pci: PciBus,
    /// Unless KVM's serves the machine.
    pub(crate) io_apic: Option<Mutex<IoApic>>,
}

impl Devices {
    /// An `in` instruction.
    pub(crate) fn port_read(&self, port: u16, data: &mut [u8]) {
        data.fill(NOTHING);
        match port {
            _ if in_com(port, COM1_PORT) => lock(&self.com1).read(port - COM1_PORT, data),
            _ if in_com(port, COM2_PORT) => lock(&self.com2).read(port - COM2_PORT, data),
            _ if PciBus::has_port(port) => self.pci.port_read(port, data),
            _ => power::port_read(port, data),
        }
    }

    /// An `out` instruction; the end of the machine if it is one.
    pub(crate) fn port_write(&self, port: u16, data: &[u8]) -> Option<End> {
        match port {
            _ if in_com(port, COM1_PORT) => lock(&self.com1).write(port - COM1_PORT, data),
            _ if in_com(port, COM2_PORT) => lock(&self.com2).write(port - COM2_PORT, data),
            _ => {
                let end = power::port_write(port, data);
                if end.is_some() {
                    return end;
                }
                if PciBus::has_port(port) {
                    self.pci.port_write(port, data);
                }
            }
        }
        None
    }

    /// A read of an address that is not RAM.
    pub(crate) fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        data.fill(NOTHING);
        if let Some((io_apic, into)) = self.io_apic_at(gpa) {
            return lock(io_apic).read(into, data);
        }
        self.pci.mmio_read(gpa, data);
    }

    /// A write to an address that is not RAM.
    pub(crate) fn mmio_write(&self, gpa: u64, data: &[u8]) {
        if let Some((io_apic, into)) = self.io_apic_at(gpa) {
            return lock(io_apic).write(into, data);
        }
        self.pci.mmio_write(gpa, data);
    }

    /// The I/O APIC of ours, and how far `gpa` is into it.
    fn io_apic_at(&self, gpa: u64) -> Option<(&Mutex<IoApic>, u64)> {
        let into = gpa.checked_sub(u64::from(IO_APIC))?;
        let io_apic = self.io_apic.as_ref()?;
        (into < APIC_BYTES).then_some((io_apic, into))
    }
}

fn in_com(port: u16, first: u16) -> bool {
    (first..first + COM_PORTS).contains(&port)
}
