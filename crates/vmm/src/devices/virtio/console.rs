//! The console device: its ports, and the messages by which they come and go (Virtio 1.2, section 5.3).

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;

use virtio_queue::{Error, Queue, QueueT};
use vm_memory::GuestMemoryMmap;

use super::chain::Chain;
use super::device::{MAX_QUEUES, Progress, VERSION_1, VirtioDevice, Wait};
use super::port::Port;

/// Ports that a console may have, numbered from 0 on.
pub const MAX_PORTS: u32 = 16;

const _: () = assert!(2 * MAX_PORTS + 2 <= MAX_QUEUES as u32);

/// `VIRTIO_CONSOLE_F_MULTIPORT`.
const MULTIPORT: u64 = 1 << 1;

/// Queues of control messages; those of port 0 come before, those of the others after them.
const CONTROL_RECEIVE: usize = 2;
const CONTROL_TRANSMIT: usize = 3;

/// What a port of the console is to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// A terminal: `/dev/hvc0` for the first.
    Console,
    /// A byte stream, with what the guest reads in `/sys/class/virtio-ports/vport*/name`.
    Named(String),
}

/// Events of control messages.
const DEVICE_READY: u16 = 0;
const PORT_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const CONSOLE_PORT: u16 = 4;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;

/// Messages that wait for the guest to give a buffer. More than a driver causes; the rest is dropped.
const MAX_MESSAGES: usize = 64;
/// Control messages taken in one go.
const CONTROL_AT_ONCE: usize = 64;

/// A port, and what the guest is told of it.
#[derive(Debug)]
struct Numbered {
    port: Port,
    kind: PortKind,
}

/// The device behind the transport.
#[derive(Debug)]
pub(crate) struct Console {
    /// By number. A port that is not there still has its queues.
    ports: Vec<Option<Numbered>>,
    messages: VecDeque<Vec<u8>>,
    /// `struct virtio_console_config`.
    config: [u8; 12],
}

impl Console {
    /// With a port of each number that is given, which must be below [`MAX_PORTS`], and our end of its stream.
    pub(crate) fn new(ports: Vec<(u32, PortKind, UnixStream)>) -> io::Result<Self> {
        let mut numbered = Vec::new();
        for (number, kind, stream) in ports {
            let index = number.min(MAX_PORTS - 1) as usize;
            if numbered.len() <= index {
                numbered.resize_with(index + 1, || None);
            }
            let port = Port::new(stream)?;
            numbered[index] = Some(Numbered { port, kind });
        }
        // Columns and rows unused, the number of ports, emergency write unused.
        let mut config = [0; 12];
        config[4..8].copy_from_slice(&u32::try_from(numbered.len()).unwrap_or(0).to_le_bytes());
        Ok(Self {
            ports: numbered,
            messages: VecDeque::new(),
            config,
        })
    }

    fn ports(&self) -> impl Iterator<Item = &Port> {
        self.ports.iter().flatten().map(|numbered| &numbered.port)
    }
}

impl VirtioDevice for Console {
    const ID: u16 = 3;
    /// Simple communication controller, other.
    const PCI_CLASS: [u8; 3] = [0x00, 0x80, 0x07];

    /// Without the ports the device can't speak, so both are needed.
    fn features(&self) -> u64 {
        VERSION_1 | MULTIPORT
    }

    /// Two for each port, and two for control messages.
    fn queue_count(&self) -> u16 {
        let ports = u16::try_from(self.ports.len()).unwrap_or(0);
        2 * ports.max(1) + 2
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn process_queue(
        &mut self,
        index: usize,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
    ) -> Result<Progress, Error> {
        let port = match index {
            CONTROL_RECEIVE => return self.send_control(queue, memory),
            CONTROL_TRANSMIT => return self.take_control(queue, memory),
            0 | 1 => 0,
            _ => index / 2 - 1,
        };
        let Some(Some(Numbered { port, .. })) = self.ports.get_mut(port) else {
            return Ok(Progress::default());
        };
        if index.is_multiple_of(2) {
            port.receive(queue, memory)
        } else {
            port.transmit(queue, memory)
        }
    }

    fn reset(&mut self) {
        self.messages.clear();
        for numbered in self.ports.iter_mut().flatten() {
            numbered.port.reset();
        }
    }

    /// The answers to what was just read, if the queue for them came first.
    fn again(&self) -> Option<usize> {
        (!self.messages.is_empty()).then_some(CONTROL_RECEIVE)
    }

    fn waits(&self) -> Vec<Wait> {
        self.ports().filter_map(Port::wait).collect()
    }

    fn is_blocked(&self) -> bool {
        self.ports().any(Port::is_blocked)
    }
}

impl Console {
    /// Gives the guest the messages that wait.
    fn send_control(
        &mut self,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
    ) -> Result<Progress, Error> {
        let mut progress = Progress::default();
        while let Some(message) = self.messages.front() {
            let Some(chain) = Chain::pop(queue, memory)? else {
                break;
            };
            let written = chain.write(message);
            self.messages.pop_front();
            queue.add_used(memory, chain.head(), u32::try_from(written).unwrap_or(0))?;
            progress.used = true;
        }
        Ok(progress)
    }

    /// Takes messages from the guest.
    fn take_control(
        &mut self,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
    ) -> Result<Progress, Error> {
        let mut progress = Progress::default();
        for _ in 0..CONTROL_AT_ONCE {
            let Some(chain) = Chain::pop(queue, memory)? else {
                return Ok(progress);
            };
            let mut message = [0; 8];
            if chain.read(0, &mut message) == message.len() {
                self.handle_control(message);
            }
            queue.add_used(memory, chain.head(), 0)?;
            progress.used = true;
        }
        progress.more = true;
        Ok(progress)
    }

    /// `struct virtio_console_control`: port, event, value.
    fn handle_control(&mut self, message: [u8; 8]) {
        let [a, b, c, d, event_low, event_high, ok, _] = message;
        let port = u32::from_le_bytes([a, b, c, d]);
        match u16::from_le_bytes([event_low, event_high]) {
            DEVICE_READY if ok == 1 => {
                for port in (0..).take(self.ports.len()) {
                    if self.kind(port).is_some() {
                        self.queue_message(port, PORT_ADD, 1, b"");
                    }
                }
            }
            PORT_READY if ok == 1 => match self.kind(port).cloned() {
                Some(PortKind::Console) => {
                    self.queue_message(port, CONSOLE_PORT, 1, b"");
                    self.queue_message(port, PORT_OPEN, 1, b"");
                }
                Some(PortKind::Named(name)) => {
                    self.queue_message(port, PORT_NAME, 1, name.as_bytes());
                    self.queue_message(port, PORT_OPEN, 1, b"");
                }
                None => {}
            },
            _ => {}
        }
    }

    fn kind(&self, port: u32) -> Option<&PortKind> {
        let port = self.ports.get(usize::try_from(port).ok()?)?;
        port.as_ref().map(|numbered| &numbered.kind)
    }

    fn queue_message(&mut self, port: u32, event: u16, value: u16, text: &[u8]) {
        if self.messages.len() < MAX_MESSAGES {
            let mut message = port.to_le_bytes().to_vec();
            message.extend(event.to_le_bytes());
            message.extend(value.to_le_bytes());
            message.extend(text);
            self.messages.push_back(message);
        }
    }
}
