//! The virtio console on its PCI bus, under a driver that does what it likes to it.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use arbitrary::{Result, Unstructured};
use vm_memory::{Bytes, GuestAddress};

use crate::arch::layout::{PCI_CONFIG_ADDRESS, PCI_CONFIG_DATA, PCI_ECAM, PCI_WINDOW};
use crate::devices::virtio::driver::{ConsoleDriver, Driver, PAGE, RAM_BYTES, queue_at};
use crate::lock::lock;

/// Offsets in the BAR of the queues' doorbells, and in configuration space of the BAR.
const NOTIFY: u64 = 0x3000;
const BAR_AT: u32 = 0x10;

/// Queue from guest to host on the frames' port, and its vector.
const FRAMES_OUT: usize = 5;
const FRAMES_OUT_VECTOR: u32 = 6;

/// Register accesses, descriptors and rings of any content, and what the host does, in any order. The device
/// keeps its identity; and after a reset a driver that behaves is served, whatever was before.
pub fn virtio_console(input: &[u8]) {
    let mut guest = Guest {
        driver: ConsoleDriver::new(),
        frames_gone: false,
    };
    let identity = guest.driver.config(1, 0);
    // Ends early where the input ends within an operation.
    let _ = guest.run(&mut Unstructured::new(input));
    assert_eq!(guest.driver.config(1, 0), identity);
    guest.behave();
}

struct Guest {
    driver: ConsoleDriver,
    /// The host's end of the frames' port was closed.
    frames_gone: bool,
}

impl Guest {
    fn run(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        while !input.is_empty() {
            match input.arbitrary::<u8>()? % 20 {
                0..4 => self.registers(input)?,
                4..6 => self.bus(input)?,
                6..8 => self.descriptor(input)?,
                8..10 => self.rings(input)?,
                10 => {
                    let at = u64::from(input.arbitrary::<u32>()?) % RAM_BYTES;
                    let len = usize::from(input.arbitrary::<u8>()?);
                    // What reaches over the end of RAM is written as far as there is RAM.
                    let _ = self
                        .driver
                        .memory
                        .write(input.bytes(len)?, GuestAddress(at));
                }
                11 => self.driver.bring_up_at_home(),
                12..14 => self.driver.process(),
                14 => {
                    let queue = u64::from(input.arbitrary::<u8>()?);
                    self.driver.put(NOTIFY + queue % 16 * 4, &[0, 0]);
                    self.driver.process();
                }
                15..17 => self.host(input)?,
                17 => {
                    let [queue, len]: [u8; 2] = input.arbitrary()?;
                    self.driver
                        .offer(usize::from(queue) % 6, u32::from(len), true);
                }
                18 => {
                    let [queue, len]: [u8; 2] = input.arbitrary()?;
                    let bytes = input.bytes(usize::from(len))?;
                    self.driver.send(usize::from(queue) % 6, bytes);
                }
                _ => {
                    let [port, event, value]: [u8; 3] = input.arbitrary()?;
                    self.driver.control(port.into(), event.into(), value.into());
                }
            }
        }
        Ok(())
    }

    /// Any access to the BAR, or one of a usual width to a register of the common structure.
    fn registers(&self, input: &mut Unstructured<'_>) -> Result<()> {
        let [kind, low, high]: [u8; 3] = input.arbitrary()?;
        let len = usize::from(kind >> 4) % 9;
        let at = u64::from(u16::from_le_bytes([low, high]));
        match kind % 3 {
            0 => self
                .driver
                .put(at % 64, input.bytes([1, 2, 4, 8][len % 4])?),
            1 => self.driver.put(at, input.bytes(len)?),
            _ => {
                let mut data = vec![0; len];
                self.driver.devices.mmio_read(PCI_WINDOW + at, &mut data);
            }
        }
        Ok(())
    }

    /// Configuration space, by its ports or in memory, reads after writes.
    fn bus(&self, input: &mut Unstructured<'_>) -> Result<()> {
        let [kind, at, device]: [u8; 3] = input.arbitrary()?;
        let mut data = input.bytes(usize::from(kind >> 4) % 9)?.to_vec();
        let devices = &self.driver.devices;
        match kind % 4 {
            0 => {
                let _ = devices.port_write(PCI_CONFIG_ADDRESS, &data);
            }
            1 | 2 => {
                let address = 1 << 31 | u32::from(device) << 8 | u32::from(at);
                let _ = devices.port_write(PCI_CONFIG_ADDRESS, &address.to_le_bytes());
                let port = PCI_CONFIG_DATA + u16::from(at % 5);
                let _ = devices.port_write(port, &data);
                devices.port_read(port, &mut data);
            }
            _ => {
                let gpa = PCI_ECAM + u64::from(device) * PAGE + u64::from(at);
                devices.mmio_write(gpa, &data);
                devices.mmio_read(gpa, &mut data);
            }
        }
        Ok(())
    }

    /// A descriptor of any content in one of the places where a queue's table usually is.
    fn descriptor(&self, input: &mut Unstructured<'_>) -> Result<()> {
        let [queue, index, high, flags, next]: [u8; 5] = input.arbitrary()?;
        let [address, len]: [u32; 2] = input.arbitrary()?;
        let address = match high {
            0..0xf0 => u64::from(address) % (RAM_BYTES + 0x1000),
            0xf0..0xf8 => u64::from(address) << 32 | u64::from(high),
            _ => u64::MAX - u64::from(address),
        };
        let mut bytes = address.to_le_bytes().to_vec();
        let len = if high & 1 == 0 { len % 0x2000 } else { len };
        bytes.extend(len.to_le_bytes());
        bytes.extend([flags, 0, next % 16, next & 0x80]);
        let table = queue_at(usize::from(queue) % 6);
        self.ram(table + u64::from(index % 16) * 16, &bytes);
        Ok(())
    }

    /// The index or an entry of an available or used ring.
    fn rings(&self, input: &mut Unstructured<'_>) -> Result<()> {
        let [queue, part, at]: [u8; 3] = input.arbitrary()?;
        let word: u16 = input.arbitrary()?;
        let ring = queue_at(usize::from(queue) % 6) + PAGE * (1 + u64::from(part >> 7));
        self.ram(ring + u64::from(at % 16) * 2, &word.to_le_bytes());
        Ok(())
    }

    fn host(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let [kind, len]: [u8; 2] = input.arbitrary()?;
        let stream = if kind & 0x80 == 0 {
            &mut self.driver.frames
        } else {
            &mut self.driver.shell
        };
        match kind % 8 {
            // A host's stream may be full.
            0..3 => _ = stream.write(&vec![kind; 16 * usize::from(len)]),
            3 if len == 0xff => {
                self.frames_gone |= kind & 0x80 == 0;
                let (unconnected, _) = UnixStream::pair().expect("a pair of streams");
                *stream = unconnected;
            }
            _ => _ = stream.read(&mut vec![0; 1024 * usize::from(len)]),
        }
        Ok(())
    }

    fn ram(&self, at: u64, bytes: &[u8]) {
        self.driver
            .memory
            .write_slice(bytes, GuestAddress(at))
            .expect("the queues lie in RAM");
    }

    /// A driver that behaves takes over.
    fn behave(&mut self) {
        self.driver.bring_up_at_home();
        if !self.frames_gone {
            self.read_all();
        }
        lock(&self.driver.interrupts).clear();
        self.driver.send(FRAMES_OUT, b"still here");
        let used = self.driver.received(FRAMES_OUT, 0).len();
        assert_eq!(used, 1, "the guest did not get its buffer back");
        assert!(lock(&self.driver.interrupts).contains(&FRAMES_OUT_VECTOR));
        if !self.frames_gone {
            assert_eq!(self.read_all(), b"still here");
        }
    }

    fn read_all(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        match self.driver.frames.read_to_end(&mut all) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => all,
            other => panic!("the device closed the frames' port: {other:?}"),
        }
    }
}

impl Driver {
    /// Puts the BAR where a machine starts with it, whatever was written to it, and sets the device up.
    fn bring_up_at_home(&mut self) {
        let bar = u32::try_from(PCI_WINDOW).expect("it lies below 4 GiB");
        self.set_config(1, BAR_AT, bar);
        self.bring_up();
    }
}
