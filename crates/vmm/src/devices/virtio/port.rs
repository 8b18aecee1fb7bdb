//! One port of the console: a byte stream in both directions.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::poll::PollFlags;

use super::chain::Chain;
use super::device::Wait;
use super::queue::{BadQueue, GuestQueue};

/// Bytes that are progress at once.
const CHUNK_BYTES: usize = 32 << 10;

/// Bytes that are sent in one go, while the device is locked: a chain may name all of RAM many times over.
const BYTES_AT_ONCE: usize = 1 << 20;

/// Chains that are worked off in one go, so that a busy port leaves time for others.
const CHAINS_AT_ONCE: usize = 64;

/// How much of a chain was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    All,
    /// The host takes no more for now.
    Blocked,
    /// It is time for others.
    Part,
}

/// Our side of a port.
#[derive(Debug)]
pub(super) struct Port {
    stream: Arc<UnixStream>,
    /// Bytes of the first chain of the transmit queue that the host has already got.
    sent_bytes: usize,
    /// The host's end takes no more at the moment.
    blocked: bool,
    /// The host's end is gone: what the guest sends is dropped.
    broken: bool,
    /// The host sends no more.
    input_ended: bool,
    /// The guest has given buffers for input.
    has_room: bool,
}

impl Port {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: Arc::new(stream),
            sent_bytes: 0,
            blocked: false,
            broken: false,
            input_ended: false,
            has_room: false,
        })
    }

    /// The stream, and what to wait for on it.
    pub(super) fn wait(&self) -> Option<Wait> {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, self.has_room && !self.input_ended);
        flags.set(PollFlags::POLLOUT, self.is_blocked());
        // A stream waited for in vain would report a hang-up again and again.
        (!flags.is_empty()).then(|| (Arc::clone(&self.stream) as _, flags))
    }

    /// Whether bytes wait for the host's end to take more.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked && !self.broken
    }

    /// The guest's driver starts afresh.
    pub(super) fn reset(&mut self) {
        self.sent_bytes = 0;
        self.blocked = false;
        self.has_room = false;
    }

    /// Guest to host. A host that reads slowly holds up the guest: its buffers stay in the queue.
    pub(super) fn transmit(&mut self, queue: &mut GuestQueue<'_>) -> Result<bool, BadQueue> {
        self.blocked = false;
        let mut room_bytes = BYTES_AT_ONCE;
        for _ in 0..CHAINS_AT_ONCE {
            let Some(chain) = queue.pop()? else {
                return Ok(false);
            };
            let sent = self.send(&chain, &mut room_bytes);
            if sent != Sent::All {
                queue.put_back(chain);
                self.blocked = sent == Sent::Blocked;
                return Ok(sent == Sent::Part);
            }
            self.sent_bytes = 0;
            queue.give_back(&chain, 0)?;
        }
        Ok(true)
    }

    /// Sends what is left of a chain, at most `room_bytes`, and takes it off them.
    fn send(&mut self, chain: &Chain<'_>, room_bytes: &mut usize) -> Sent {
        let mut buffer = vec![0; CHUNK_BYTES];
        while *room_bytes > 0 {
            let most = CHUNK_BYTES.min(*room_bytes);
            let count = chain.read(self.sent_bytes, &mut buffer[..most]);
            if count == 0 {
                return Sent::All;
            }
            *room_bytes -= count;
            let mut bytes = &buffer[..count];
            while !bytes.is_empty() {
                if self.broken {
                    return Sent::All;
                }
                match self.stream.as_ref().write(bytes) {
                    Ok(written) => {
                        self.sent_bytes += written;
                        bytes = &bytes[written..];
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Sent::Blocked,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => self.broken = true,
                }
            }
        }
        Sent::Part
    }

    /// Host to guest: fills the buffers that the guest gave.
    pub(super) fn receive(&mut self, queue: &mut GuestQueue<'_>) -> Result<bool, BadQueue> {
        self.has_room = false;
        if self.input_ended {
            return Ok(false);
        }
        for _ in 0..CHAINS_AT_ONCE {
            let Some(chain) = queue.pop()? else {
                return Ok(false);
            };
            let Some(len) = self.fill(&chain) else {
                queue.put_back(chain);
                self.has_room = true;
                return Ok(false);
            };
            queue.give_back(&chain, len)?;
        }
        Ok(true)
    }

    /// Fills a chain with what the host has sent, and gives the length; `None` if there is nothing.
    fn fill(&mut self, chain: &Chain<'_>) -> Option<usize> {
        let mut buffer = vec![0; CHUNK_BYTES.min(chain.writable_bytes())];
        if buffer.is_empty() {
            return Some(0);
        }
        loop {
            match self.stream.as_ref().read(&mut buffer) {
                Ok(0) => {
                    self.input_ended = true;
                    return None;
                }
                Ok(count) => {
                    return Some(chain.write(0, &buffer[..count]));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(_) => {
                    self.input_ended = true;
                    return None;
                }
            }
        }
    }
}
