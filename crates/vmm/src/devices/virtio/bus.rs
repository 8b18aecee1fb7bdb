//! Putting virtio devices on the PCI bus.

use std::sync::{Arc, Mutex};

use nix::sys::eventfd::EventFd;
use vm_memory::GuestMemoryMmap;

use super::device::VirtioDevice;
use super::pci::VirtioPci;
use super::worker::Worker;
use crate::devices::pci::PciBus;
use crate::interrupt::MsiSink;

/// The bus, while devices are added to it.
#[derive(Debug)]
pub(crate) struct VirtioBus {
    pci: PciBus,
    functions: Vec<Arc<Mutex<VirtioPci>>>,
    sink: Arc<dyn MsiSink>,
    wake: Arc<EventFd>,
}

impl VirtioBus {
    /// An empty one, whose devices send their interrupts to `sink` and write to `wake` when they want to be served.
    pub(crate) fn new(sink: Arc<dyn MsiSink>, wake: Arc<EventFd>) -> Self {
        Self {
            pci: PciBus::new(),
            functions: Vec::new(),
            sink,
            wake,
        }
    }

    pub(crate) fn add(&mut self, device: Box<dyn VirtioDevice>) {
        let index = u32::try_from(self.functions.len()).unwrap_or(u32::MAX);
        let (sink, wake) = (Arc::clone(&self.sink), Arc::clone(&self.wake));
        let function = Arc::new(Mutex::new(VirtioPci::new(device, index, sink, wake)));
        self.pci.add(Arc::clone(&function) as _);
        self.functions.push(function);
    }

    /// The bus with all devices, and what serves them.
    pub(crate) fn finish(self, memory: GuestMemoryMmap) -> (PciBus, Worker) {
        let worker = Worker::new(self.functions, memory, self.wake);
        (self.pci, worker)
    }
}
