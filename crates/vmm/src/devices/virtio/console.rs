//! The console device: its ports, and the messages by which they come and go (Virtio 1.2, section 5.3).

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

use super::chain::Chain;
use super::port::{Moved, Port};

/// Ports that the device may have.
pub(crate) const PORTS: usize = 2;
/// As the guest reads it.
const PORT_COUNT: u8 = 2;
/// Two queues a port, and two for control messages.
pub(crate) const QUEUES: usize = 2 * PORTS + 2;
/// As the guest reads it.
pub(super) const QUEUE_COUNT: u16 = 6;
/// Size of `struct virtio_console_config`.
pub(super) const CONFIG_STRUCT_BYTES: u32 = 12;

const _: () = assert!(PORT_COUNT as usize == PORTS && QUEUE_COUNT as usize == QUEUES);

/// `VIRTIO_F_VERSION_1` and `VIRTIO_CONSOLE_F_MULTIPORT`.
pub(crate) const FEATURES: u64 = 1 << 32 | 1 << 1;

/// Queues of control messages; those of port 0 come before, those of port 1 after them.
const CONTROL_RECEIVE: usize = 2;
const CONTROL_TRANSMIT: usize = 3;

/// Port of the shell, a console of the guest.
const SHELL: usize = 0;
/// Port of the frames, by name.
const FRAMES: usize = 1;

/// What the guest reads in `/sys/class/virtio-ports/vport*p1/name`.
pub const FRAMES_PORT_NAME: &str = "ktstr.frames";

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

/// What came of one round.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    /// By queue: the guest got a buffer back.
    pub(super) used: [bool; QUEUES],
    /// There is more to do at once.
    pub(super) more: bool,
    /// A queue of the guest doesn't lie in RAM, or has what was not offered: the device needs a reset.
    pub(super) broken: bool,
}

/// The device behind the transport.
#[derive(Debug)]
pub(crate) struct Console {
    ports: [Option<Port>; PORTS],
    messages: VecDeque<Vec<u8>>,
}

impl Console {
    /// With our ends of the two ports; a port without one is not there.
    pub(crate) fn new(
        shell: Option<UnixStream>,
        frames: Option<UnixStream>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            ports: [
                shell.map(Port::new).transpose()?,
                frames.map(Port::new).transpose()?,
            ],
            messages: VecDeque::new(),
        })
    }

    /// `struct virtio_console_config`: columns and rows unused, the number of ports, emergency write
    /// unused.
    pub(super) fn config() -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[4] = PORT_COUNT;
        bytes
    }

    /// Each port's stream, whether to wait until it is readable, whether until it is writable.
    pub(super) fn waits(&self) -> impl Iterator<Item = (Arc<UnixStream>, bool, bool)> + '_ {
        let ports = self.ports.iter().flatten();
        ports.map(|port| (port.stream(), port.wants_read(), port.wants_write()))
    }

    /// Whether something that the guest has sent waits for the host to read.
    pub(super) fn is_blocked(&self) -> bool {
        self.ports.iter().flatten().any(Port::wants_write)
    }

    pub(super) fn reset(&mut self) {
        self.messages.clear();
        self.ports.iter_mut().flatten().for_each(Port::reset);
    }

    pub(super) fn process(
        &mut self,
        queues: &mut [Queue; QUEUES],
        memory: &GuestMemoryMmap,
    ) -> Done {
        let mut done = Done::default();
        for (index, queue) in queues.iter_mut().enumerate() {
            if !queue.ready() {
                continue;
            }
            let moved = if queue.is_valid(memory) {
                self.process_queue(index, queue, memory)
            } else {
                Err(virtio_queue::Error::QueueNotReady)
            };
            match moved {
                Ok(moved) => {
                    done.used[index] = moved.used;
                    done.more |= moved.more;
                }
                Err(_) => done.broken = true,
            }
        }
        // The answers to what was just read, if the queue for them came first.
        if !self.messages.is_empty() && queues[CONTROL_RECEIVE].ready() && !done.broken {
            match self.send_control(&mut queues[CONTROL_RECEIVE], memory) {
                Ok(moved) => done.used[CONTROL_RECEIVE] |= moved.used,
                Err(_) => done.broken = true,
            }
        }
        done
    }

    fn process_queue(
        &mut self,
        index: usize,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
    ) -> Result<Moved, virtio_queue::Error> {
        match index {
            CONTROL_RECEIVE => return self.send_control(queue, memory),
            CONTROL_TRANSMIT => return self.take_control(queue, memory),
            _ => {}
        }
        let port = if index < CONTROL_RECEIVE {
            SHELL
        } else {
            FRAMES
        };
        let Some(port) = &mut self.ports[port] else {
            return Ok(Moved::default());
        };
        if index.is_multiple_of(2) {
            port.receive(queue, memory)
        } else {
            port.transmit(queue, memory)
        }
    }

    /// Gives the guest the messages that wait.
    fn send_control(
        &mut self,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
    ) -> Result<Moved, virtio_queue::Error> {
        let mut moved = Moved::default();
        while let Some(message) = self.messages.front() {
            let Some(chain) = Chain::pop(queue, memory)? else {
                break;
            };
            let written = chain.write(message);
            self.messages.pop_front();
            queue.add_used(memory, chain.head(), u32::try_from(written).unwrap_or(0))?;
            moved.used = true;
        }
        Ok(moved)
    }

    /// Takes messages from the guest.
    fn take_control(
        &mut self,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
    ) -> Result<Moved, virtio_queue::Error> {
        let mut moved = Moved::default();
        for _ in 0..CONTROL_AT_ONCE {
            let Some(chain) = Chain::pop(queue, memory)? else {
                return Ok(moved);
            };
            let mut message = [0; 8];
            if chain.read(0, &mut message) == message.len() {
                self.handle_control(message);
            }
            queue.add_used(memory, chain.head(), 0)?;
            moved.used = true;
        }
        moved.more = true;
        Ok(moved)
    }

    /// `struct virtio_console_control`: port, event, value.
    fn handle_control(&mut self, message: [u8; 8]) {
        let [a, b, c, d, event_low, event_high, ok, _] = message;
        let port = u32::from_le_bytes([a, b, c, d]);
        match u16::from_le_bytes([event_low, event_high]) {
            DEVICE_READY if ok == 1 => {
                for port in 0..PORTS {
                    if self.ports[port].is_some() {
                        self.queue_message(port, PORT_ADD, 1, b"");
                    }
                }
            }
            PORT_READY if ok == 1 => {
                let known = usize::try_from(port)
                    .ok()
                    .filter(|&port| self.ports.get(port).is_some_and(Option::is_some));
                if let Some(port) = known {
                    if port == SHELL {
                        self.queue_message(port, CONSOLE_PORT, 1, b"");
                    } else {
                        self.queue_message(port, PORT_NAME, 1, FRAMES_PORT_NAME.as_bytes());
                    }
                    self.queue_message(port, PORT_OPEN, 1, b"");
                }
            }
            _ => {}
        }
    }

    fn queue_message(&mut self, port: usize, event: u16, value: u16, text: &[u8]) {
        let Ok(port) = u32::try_from(port) else {
            return;
        };
        if self.messages.len() < MAX_MESSAGES {
            let mut message = port.to_le_bytes().to_vec();
            message.extend(event.to_le_bytes());
            message.extend(value.to_le_bytes());
            message.extend(text);
            self.messages.push_back(message);
        }
    }
}
