//! The devices, and which of them answers at a port or address.

pub(crate) mod pci;
pub(crate) mod serial;
pub(crate) mod virtio;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::arch::io_apic::IoApic;
use crate::arch::layout::{
    APIC_BYTES, COM_PORTS, COM1_PORT, COM2_PORT, IO_APIC, PCI_ECAM, PCI_ECAM_BYTES,
};
use crate::arch::power;
use crate::end::End;
use pci::PciBus;
use serial::SerialPort;
use virtio::pci::VirtioPci;

/// What a read gives where no device is.
const NOTHING: u8 = 0xff;

/// All devices of a machine. Where two are locked, the console is locked first. Every call is short and returns; none waits for the guest.
#[derive(Debug)]
pub(crate) struct Devices {
    pub(crate) com1: Mutex<SerialPort>,
    pub(crate) com2: Mutex<SerialPort>,
    pub(crate) pci: Mutex<PciBus>,
    pub(crate) console: Arc<Mutex<VirtioPci>>,
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
            _ if PciBus::has_port(port) => {
                let console = lock(&self.console);
                lock(&self.pci).port_read(&console, port, data);
            }
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
                    let mut console = lock(&self.console);
                    lock(&self.pci).port_write(&mut console, port, data);
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
        let console = lock(&self.console);
        match in_ecam(gpa) {
            Some(into) => lock(&self.pci).ecam_read(&console, into, data),
            None => console.mmio_read(gpa, data),
        }
    }

    /// A write to an address that is not RAM.
    pub(crate) fn mmio_write(&self, gpa: u64, data: &[u8]) {
        if let Some((io_apic, into)) = self.io_apic_at(gpa) {
            return lock(io_apic).write(into, data);
        }
        let mut console = lock(&self.console);
        match in_ecam(gpa) {
            Some(into) => PciBus::ecam_write(&mut console, into, data),
            None => console.mmio_write(gpa, data),
        }
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

/// How far `gpa` is into PCI configuration space; `None` if it isn't in it.
fn in_ecam(gpa: u64) -> Option<u64> {
    gpa.checked_sub(PCI_ECAM)
        .filter(|into| *into < PCI_ECAM_BYTES)
}

/// Takes the lock also after a panic in another thread: the machine is being ended then, and a device has
/// no state that could do harm.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
