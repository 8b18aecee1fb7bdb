//! The console device: its ports, and the messages by which they come and go (Virtio 1.2, section 5.3).

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;

use super::device::{MAX_QUEUES, VirtioDevice, Wait};
use super::port::Port;
use super::queue::{BadQueue, GuestQueue};

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
    fn id(&self) -> u16 {
        3
    }

    /// Simple communication controller, other.
    fn pci_class(&self) -> [u8; 3] {
        [0x00, 0x80, 0x07]
    }

    fn features(&self) -> u64 {
        MULTIPORT
    }

    /// Without the ports the device can't speak.
    fn needed_features(&self) -> u64 {
        MULTIPORT
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
        queue: &mut GuestQueue<'_>,
    ) -> Result<bool, BadQueue> {
        let port = match index {
            CONTROL_RECEIVE => return self.send_control(queue),
            CONTROL_TRANSMIT => return self.take_control(queue),
            0 | 1 => 0,
            _ => index / 2 - 1,
        };
        let Some(Some(Numbered { port, .. })) = self.ports.get_mut(port) else {
            return Ok(false);
        };
        if index.is_multiple_of(2) {
            port.receive(queue)
        } else {
            port.transmit(queue)
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
    fn send_control(&mut self, queue: &mut GuestQueue<'_>) -> Result<bool, BadQueue> {
        while let Some(message) = self.messages.front() {
            let Some(chain) = queue.pop()? else {
                break;
            };
            let written = chain.write(0, message);
            self.messages.pop_front();
            queue.give_back(&chain, written)?;
        }
        Ok(false)
    }

    /// Takes messages from the guest.
    fn take_control(&mut self, queue: &mut GuestQueue<'_>) -> Result<bool, BadQueue> {
        for _ in 0..CONTROL_AT_ONCE {
            let Some(chain) = queue.pop()? else {
                return Ok(false);
            };
            let mut message = [0; 8];
            if chain.read(0, &mut message) == message.len() {
                self.handle_control(message);
            }
            queue.give_back(&chain, 0)?;
        }
        Ok(true)
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
