//! A driver of the console as a kernel has one, in small: for tests, and for fuzz targets to start from.

use std::ops::{Deref, DerefMut};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::eventfd::EventFd as WakeEvent;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use super::console::{Console, PortKind};
use super::device::VirtioDevice;
use super::pci::VirtioPci;
use crate::arch::layout::{PCI_CONFIG_ADDRESS, PCI_CONFIG_DATA, PCI_WINDOW};
use crate::devices::Devices;
use crate::devices::pci::PciBus;
use crate::devices::serial::SerialPort;
use crate::interrupt::MsiSink;
use crate::lock::lock;

pub(crate) const RAM_BYTES: u64 = 4 << 20;
const QUEUE_SIZE: u16 = 8;
/// Each queue has a page for each of its three parts, then a page for each buffer.
pub(crate) const QUEUES_AT: u64 = 0x10_0000;
pub(crate) const BUFFERS_AT: u64 = 0x20_0000;
pub(crate) const PAGE: u64 = 0x1000;

/// What the driver of a kernel does, in small, to the first device on the bus.
pub(crate) struct Driver {
    pub(crate) devices: Devices,
    pub(crate) memory: GuestMemoryMmap,
    /// Data of the messages that came.
    pub(crate) interrupts: Arc<Mutex<Vec<u32>>>,
    device: Arc<Mutex<VirtioPci>>,
    features: u64,
    /// By queue: buffers that were offered.
    next: Vec<u16>,
    /// The host's ends of the serial ports, until they are taken.
    pub(crate) coms: Option<[UnixStream; 2]>,
}

#[derive(Debug)]
struct Recorder(Arc<Mutex<Vec<u32>>>);

impl MsiSink for Recorder {
    fn send(&self, _: u64, data: u32) {
        lock(&self.0).push(data);
    }
}

/// A machine with a console, on which the driver acts, and the host's ends of its two ports.
pub(crate) struct ConsoleDriver {
    driver: Driver,
    pub(crate) shell: UnixStream,
    pub(crate) frames: UnixStream,
}

/// Name of the console's second port.
pub(crate) const PORT_NAME: &str = "a.name";

impl ConsoleDriver {
    pub(crate) fn new() -> Self {
        let pair = || UnixStream::pair().unwrap();
        let ((guest_shell, shell), (guest_frames, frames)) = (pair(), pair());
        for stream in [&shell, &frames] {
            stream.set_nonblocking(true).unwrap();
        }
        let ports = vec![
            (0, PortKind::Console, guest_shell),
            (1, PortKind::Named(PORT_NAME.to_owned()), guest_frames),
        ];
        Self {
            driver: Driver::new(Console::new(ports).unwrap()),
            shell,
            frames,
        }
    }

    pub(crate) fn control(&mut self, port: u32, event: u16, value: u16) {
        let mut message = port.to_le_bytes().to_vec();
        message.extend(event.to_le_bytes());
        message.extend(value.to_le_bytes());
        self.send(3, &message);
    }
}

impl Deref for ConsoleDriver {
    type Target = Driver;

    fn deref(&self) -> &Driver {
        &self.driver
    }
}

impl DerefMut for ConsoleDriver {
    fn deref_mut(&mut self) -> &mut Driver {
        &mut self.driver
    }
}

impl Driver {
    pub(crate) fn new(device: impl VirtioDevice + 'static) -> Self {
        let ((com1, com1_host), (com2, com2_host)) =
            (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        for stream in [&com1_host, &com2_host] {
            stream.set_nonblocking(true).unwrap();
        }
        let interrupts = Arc::default();
        let features = device.features() | 1 << 32;
        let queues = usize::from(device.queue_count());
        let device = Arc::new(Mutex::new(VirtioPci::new(
            Box::new(device),
            0,
            Arc::new(Recorder(Arc::clone(&interrupts))),
            Arc::new(WakeEvent::new().unwrap()),
        )));
        let com = |stream| {
            let event = EventFd::new(0).unwrap();
            Mutex::new(SerialPort::new(event, stream, Duration::ZERO).unwrap())
        };
        let mut pci = PciBus::new();
        pci.add(Arc::clone(&device) as _);
        let ram_bytes = usize::try_from(RAM_BYTES).unwrap();
        Self {
            devices: Devices {
                com1: com(com1),
                com2: com(com2),
                pci,
                io_apic: None,
            },
            memory: GuestMemoryMmap::from_ranges(&[(GuestAddress(0), ram_bytes)]).unwrap(),
            interrupts,
            device,
            features,
            next: vec![0; queues],
            coms: Some([com1_host, com2_host]),
        }
    }

    pub(crate) fn config(&self, device: u32, at: u32) -> u32 {
        let address = 1 << 31 | device << 11 | at & 0xfc;
        self.devices
            .port_write(PCI_CONFIG_ADDRESS, &address.to_le_bytes());
        let mut word = [0; 4];
        self.devices.port_read(PCI_CONFIG_DATA, &mut word);
        u32::from_le_bytes(word)
    }

    pub(crate) fn set_config(&self, device: u32, at: u32, word: u32) {
        self.config(device, at);
        self.devices
            .port_write(PCI_CONFIG_DATA, &word.to_le_bytes());
    }

    pub(crate) fn put(&self, at: u64, bytes: &[u8]) {
        self.devices.mmio_write(PCI_WINDOW + at, bytes);
    }

    pub(crate) fn get(&self, at: u64) -> u8 {
        let mut byte = [0];
        self.devices.mmio_read(PCI_WINDOW + at, &mut byte);
        byte[0]
    }

    pub(crate) fn process(&self) {
        lock(&self.device).process(&self.memory);
    }

    /// Resets and sets up all queues and vectors, as Linux does.
    pub(crate) fn bring_up(&mut self) {
        self.next.fill(0);
        self.set_config(1, 4, 0b110);
        self.set_config(1, 0x40, 1 << 31);
        self.put(20, &[0]);
        self.put(20, &[1]);
        self.put(20, &[3]);
        for half in 0..2_u32 {
            self.put(8, &half.to_le_bytes());
            let word = self.features >> (32 * half) & 0xffff_ffff;
            self.put(12, &u32::try_from(word).unwrap().to_le_bytes());
        }
        self.put(20, &[11]);
        assert_eq!(self.get(20), 11);
        for queue in (0..).take(self.next.len()) {
            let queue: u16 = queue;
            let at = queue_at(queue.into());
            self.memory
                .write_slice(&[0; 3 * 4096], GuestAddress(at))
                .unwrap();
            self.put(22, &queue.to_le_bytes());
            self.put(24, &QUEUE_SIZE.to_le_bytes());
            self.put(26, &(queue + 1).to_le_bytes());
            for part in 0..3 {
                self.put(32 + part * 8, &(at + part * PAGE).to_le_bytes());
            }
            self.put(28, &1_u16.to_le_bytes());
            // The vector's message, with its number as data, and unmasked.
            let entry = 0x4000 + u64::from(queue + 1) * 16;
            self.put(entry + 8, &u32::from(queue + 1).to_le_bytes());
            self.put(entry + 12, &0_u32.to_le_bytes());
        }
        self.put(20, &[15]);
        self.process();
    }

    /// Offers a buffer of `len` bytes, which the device writes if `for_device`.
    pub(crate) fn offer(&mut self, queue: usize, len: u32, for_device: bool) {
        let index = self.next[queue] % QUEUE_SIZE;
        let at = queue_at(queue);
        let mut descriptor = buffer_at(queue, index).to_le_bytes().to_vec();
        descriptor.extend(len.to_le_bytes());
        descriptor.extend((u16::from(for_device) * 2).to_le_bytes());
        descriptor.extend([0; 2]);
        let write = |bytes: &[u8], at| self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
        write(&descriptor, at + u64::from(index) * 16);
        write(&index.to_le_bytes(), at + PAGE + 4 + u64::from(index) * 2);
        self.next[queue] += 1;
        write(&self.next[queue].to_le_bytes(), at + PAGE + 2);
    }

    pub(crate) fn send(&mut self, queue: usize, bytes: &[u8]) {
        let at = buffer_at(queue, self.next[queue] % QUEUE_SIZE);
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
        self.offer(queue, bytes.len().try_into().unwrap(), false);
        self.process();
    }

    /// What the device put into the buffers of `queue` from the `from`th on.
    pub(crate) fn received(&self, queue: usize, from: u16) -> Vec<Vec<u8>> {
        let used = queue_at(queue) + 2 * PAGE;
        let count: u16 = self.memory.read_obj(GuestAddress(used + 2)).unwrap();
        (from..count)
            .map(|nth| {
                let element = used + 4 + u64::from(nth % QUEUE_SIZE) * 8;
                let [index, len]: [u32; 2] = self.memory.read_obj(GuestAddress(element)).unwrap();
                let mut bytes = vec![0; len as usize];
                let at = buffer_at(queue, index.try_into().unwrap());
                self.memory
                    .read_slice(&mut bytes, GuestAddress(at))
                    .unwrap();
                bytes
            })
            .collect()
    }
}

pub(crate) fn queue_at(queue: usize) -> u64 {
    QUEUES_AT + queue as u64 * 3 * PAGE
}

pub(crate) fn buffer_at(queue: usize, index: u16) -> u64 {
    BUFFERS_AT + (queue as u64 * u64::from(QUEUE_SIZE) + u64::from(index)) * PAGE
}
