use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd as WakeEvent;
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use super::console::{Console, FRAMES_PORT_NAME, QUEUE_COUNT, QUEUES};
use super::msix::MsiSink;
use super::pci::VirtioPci;
use crate::arch::x86_64::layout::{PCI_CONFIG_ADDRESS, PCI_CONFIG_DATA, PCI_ECAM, PCI_WINDOW};
use crate::devices::pci::PciBus;
use crate::devices::serial::SerialPort;
use crate::devices::{Devices, lock};

const RAM_BYTES: u64 = 4 << 20;
const QUEUE_SIZE: u16 = 8;
/// Each queue has a page for each of its three parts, then a page for each buffer.
const QUEUES_AT: u64 = 0x10_0000;
const BUFFERS_AT: u64 = 0x20_0000;
const PAGE: u64 = 0x1000;

/// What the driver of a kernel does, in small.
struct Driver {
    devices: Devices,
    memory: GuestMemoryMmap,
    interrupts: Arc<Mutex<Vec<u32>>>,
    next: [u16; QUEUES],
    shell: UnixStream,
    frames: UnixStream,
}

#[derive(Debug)]
struct Recorder(Arc<Mutex<Vec<u32>>>);

impl MsiSink for Recorder {
    fn send(&self, _: u64, data: u32) {
        lock(&self.0).push(data);
    }
}

impl Driver {
    fn new() -> Self {
        let pair = || UnixStream::pair().unwrap();
        let ((shell, shell_host), (frames, frames_host)) = (pair(), pair());
        for stream in [&shell_host, &frames_host] {
            stream.set_nonblocking(true).unwrap();
        }
        let interrupts = Arc::default();
        let console = VirtioPci::new(
            Console::new(Some(shell), Some(frames)).unwrap(),
            Box::new(Recorder(Arc::clone(&interrupts))),
            Arc::new(WakeEvent::new().unwrap()),
        );
        let com = || {
            let event = EventFd::new(0).unwrap();
            Mutex::new(SerialPort::new(event, pair().0).unwrap())
        };
        Self {
            devices: Devices {
                com1: com(),
                com2: com(),
                pci: Mutex::new(PciBus::new()),
                console: Arc::new(Mutex::new(console)),
            },
            memory: GuestMemoryMmap::from_ranges(&[(
                GuestAddress(0),
                usize::try_from(RAM_BYTES).unwrap(),
            )])
            .unwrap(),
            interrupts,
            next: [0; QUEUES],
            shell: shell_host,
            frames: frames_host,
        }
    }

    fn config(&self, device: u32, at: u32) -> u32 {
        let address = 1 << 31 | device << 11 | at & 0xfc;
        self.devices
            .port_write(PCI_CONFIG_ADDRESS, &address.to_le_bytes());
        let mut word = [0; 4];
        self.devices.port_read(PCI_CONFIG_DATA, &mut word);
        u32::from_le_bytes(word)
    }

    fn set_config(&self, device: u32, at: u32, word: u32) {
        self.config(device, at);
        self.devices
            .port_write(PCI_CONFIG_DATA, &word.to_le_bytes());
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.devices.mmio_write(PCI_WINDOW + at, bytes);
    }

    fn get(&self, at: u64) -> u8 {
        let mut byte = [0];
        self.devices.mmio_read(PCI_WINDOW + at, &mut byte);
        byte[0]
    }

    fn process(&self) {
        lock(&self.devices.console).process(&self.memory);
    }

    /// Resets and sets up all queues and vectors, as Linux does.
    fn bring_up(&mut self) {
        self.next = [0; QUEUES];
        self.set_config(1, 4, 0b110);
        self.set_config(1, 0x40, 1 << 31);
        self.put(20, &[0]);
        self.put(20, &[1]);
        self.put(20, &[3]);
        self.put(8, &0_u32.to_le_bytes());
        self.put(12, &2_u32.to_le_bytes());
        self.put(8, &1_u32.to_le_bytes());
        self.put(12, &1_u32.to_le_bytes());
        self.put(20, &[11]);
        assert_eq!(self.get(20), 11);
        for queue in 0..QUEUE_COUNT {
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
    fn offer(&mut self, queue: usize, len: u32, for_device: bool) {
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

    fn send(&mut self, queue: usize, bytes: &[u8]) {
        let at = buffer_at(queue, self.next[queue] % QUEUE_SIZE);
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
        self.offer(queue, bytes.len().try_into().unwrap(), false);
        self.process();
    }

    fn control(&mut self, port: u32, event: u16, value: u16) {
        let mut message = port.to_le_bytes().to_vec();
        message.extend(event.to_le_bytes());
        message.extend(value.to_le_bytes());
        self.send(3, &message);
    }

    /// What the device put into the buffers of `queue` from the `from`th on.
    fn received(&self, queue: usize, from: u16) -> Vec<Vec<u8>> {
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

fn queue_at(queue: usize) -> u64 {
    QUEUES_AT + queue as u64 * 3 * PAGE
}

fn buffer_at(queue: usize, index: u16) -> u64 {
    BUFFERS_AT + (queue as u64 * u64::from(QUEUE_SIZE) + u64::from(index)) * PAGE
}

#[test]
fn the_bus_has_a_bridge_and_the_console() {
    let driver = Driver::new();
    assert_eq!(driver.config(0, 8) >> 16, 0x0600);
    assert_eq!(driver.config(1, 0), 0x1043_1af4);
    assert_eq!(driver.config(2, 0), u32::MAX);
    let ecam = |device: u64, at: u64| {
        let mut word = [0; 4];
        let gpa = PCI_ECAM + device * 0x8000 + at;
        driver.devices.mmio_read(gpa, &mut word);
        u32::from_le_bytes(word)
    };
    assert_eq!(ecam(0, 0), driver.config(0, 0));
    assert_eq!(ecam(1, 0), driver.config(1, 0));
    assert_eq!((ecam(1, 0x100), ecam(2, 0)), (0, u32::MAX));
    driver.devices.mmio_write(PCI_ECAM + 0x8000 + 0x3c, &[7]);
    assert_eq!(driver.config(1, 0x3c), 7);
    // Every capability is reached from the first on, and the last ends the list.
    let mut at = driver.config(1, 0x34) & 0xff;
    let mut kinds = Vec::new();
    while at != 0 && kinds.len() < 16 {
        let word = driver.config(1, at);
        kinds.push((word & 0xff, if word & 0xff == 9 { word >> 24 } else { 0 }));
        at = word >> 8 & 0xff;
    }
    assert_eq!(kinds, [(0x11, 0), (9, 1), (9, 2), (9, 3), (9, 4)]);
}

#[test]
fn the_bar_has_a_size_and_moves() {
    let driver = Driver::new();
    driver.set_config(1, 0x10, u32::MAX);
    assert_eq!(driver.config(1, 0x10), 0xffff_8000);
    driver.set_config(1, 0x10, 0xd000_0000);
    let mut count = [0; 2];
    driver.devices.mmio_read(0xd000_0012, &mut count);
    assert_eq!(u16::from_le_bytes(count), QUEUE_COUNT);
    driver.devices.mmio_read(PCI_WINDOW + 0x12, &mut count);
    assert_eq!(count, [0xff; 2]);
}

#[test]
fn ports_are_announced_named_and_open() {
    let mut driver = Driver::new();
    driver.bring_up();
    for _ in 0..6 {
        driver.offer(2, 64, true);
    }
    driver.control(u32::MAX, 0, 1);
    driver.control(1, 3, 1);
    driver.control(0, 3, 1);
    driver.control(7, 3, 1);
    let named = [&[1, 0, 0, 0, 7, 0, 1, 0], FRAMES_PORT_NAME.as_bytes()].concat();
    assert_eq!(
        driver.received(2, 0),
        [
            vec![0, 0, 0, 0, 1, 0, 1, 0],
            vec![1, 0, 0, 0, 1, 0, 1, 0],
            named,
            vec![1, 0, 0, 0, 6, 0, 1, 0],
            vec![0, 0, 0, 0, 4, 0, 1, 0],
            vec![0, 0, 0, 0, 6, 0, 1, 0],
        ]
    );
    let interrupts = lock(&driver.interrupts);
    assert!(interrupts.contains(&3) && interrupts.contains(&4));
}

#[test]
fn bytes_go_both_ways_and_to_the_right_port() {
    let mut driver = Driver::new();
    driver.bring_up();
    driver.send(5, b"frame");
    driver.send(1, b"shell");
    let mut said = [0; 16];
    assert_eq!(driver.frames.read(&mut said).unwrap(), 5);
    assert_eq!(&said[..5], b"frame");
    assert_eq!(driver.shell.read(&mut said).unwrap(), 5);
    assert_eq!(&said[..5], b"shell");
    driver.offer(4, 4, true);
    driver.offer(4, 4, true);
    driver.frames.write_all(b"answer").unwrap();
    driver.process();
    assert_eq!(driver.received(4, 0), [b"answ".to_vec(), b"er".to_vec()]);
}

#[test]
fn a_slow_host_holds_the_guest_up_and_loses_nothing() {
    let mut driver = Driver::new();
    driver.bring_up();
    let mut expected = Vec::new();
    let mut got = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(30);
    // Each is more than a stream holds at once, and lies over many pages of which no other is in use.
    for round in 0..5_u16 {
        let bytes: Vec<u8> = (0..300_000_u32)
            .map(|at| ((at / 7 + u32::from(round)) & 0xff) as u8)
            .collect();
        driver.send(5, &bytes);
        expected.extend(bytes);
        assert_eq!(driver.received(5, 0).len(), usize::from(round));
        while driver.received(5, 0).len() == usize::from(round) || got.len() < expected.len() {
            assert!(Instant::now() < deadline);
            let mut buffer = [0; 30_000];
            if let Ok(count) = driver.frames.read(&mut buffer) {
                got.extend_from_slice(&buffer[..count]);
            }
            driver.process();
        }
    }
    assert!(got == expected);
}

#[test]
fn a_host_that_went_away_does_not_hold_the_guest_up() {
    let mut driver = Driver::new();
    driver.bring_up();
    driver.frames = UnixStream::pair().unwrap().0;
    for _ in 0..20 {
        driver.send(5, b"into the void");
    }
    assert_eq!(driver.received(5, 0).len(), 20);
}

#[test]
fn a_masked_vector_is_kept_until_it_is_unmasked() {
    let mut driver = Driver::new();
    driver.bring_up();
    driver.put(0x4000 + 6 * 16 + 12, &1_u32.to_le_bytes());
    driver.send(5, b"x");
    assert!(!lock(&driver.interrupts).contains(&6));
    assert_eq!(driver.get(0x5000), 1 << 6);
    driver.put(0x4000 + 6 * 16 + 12, &0_u32.to_le_bytes());
    assert!(lock(&driver.interrupts).contains(&6));
}

#[derive(Clone, Debug)]
enum Step {
    Mmio(u64, Vec<u8>),
    Read(u64, usize),
    Port(u16, Vec<u8>),
    Ram(u64, Vec<u8>),
    Process,
    Reset,
    Host(Vec<u8>),
}

fn any_step() -> impl Strategy<Value = Step> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..9);
    let registers = prop_oneof![0_u64..64, 0x4000_u64..0x4080, 0_u64..0x9000];
    let rings = (0..QUEUES as u64 * 3, prop_oneof![0_u64..40, 0..PAGE]);
    prop_oneof![
        4 => (registers.clone(), bytes()).prop_map(|(at, bytes)| Step::Mmio(at, bytes)),
        1 => (registers, 0_usize..9).prop_map(|(at, len)| Step::Read(at, len)),
        1 => (0xcf8_u16..0xd00, bytes()).prop_map(|(port, bytes)| Step::Port(port, bytes)),
        6 => (rings, bytes())
            .prop_map(|((page, at), bytes)| Step::Ram(QUEUES_AT + page * PAGE + at, bytes)),
        4 => Just(Step::Process),
        1 => Just(Step::Reset),
        1 => bytes().prop_map(Step::Host),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_misbehaving_driver_is_survived(steps in prop::collection::vec(any_step(), 0..120)) {
        let mut driver = Driver::new();
        driver.bring_up();
        let start = Instant::now();
        for step in steps {
            match step {
                Step::Mmio(at, bytes) => driver.put(at, &bytes),
                Step::Read(at, len) => {
                    driver.devices.mmio_read(PCI_WINDOW + at, &mut vec![0; len]);
                }
                Step::Port(port, bytes) => {
                    driver.devices.port_write(port, &bytes);
                    driver.devices.port_read(port, &mut bytes.clone());
                }
                Step::Ram(at, bytes) => driver.memory.write_slice(&bytes, GuestAddress(at)).unwrap(),
                Step::Process => driver.process(),
                Step::Reset => {
                    driver.put(20, &[0]);
                }
                Step::Host(bytes) => {
                    // The host's end may be full: then nothing is added.
                    let _ = driver.frames.write(&bytes);
                    let _ = driver.shell.read(&mut [0; 4096]);
                }
            }
        }
        prop_assert!(start.elapsed() < Duration::from_secs(10));
    }
}
