//! Chains of descriptors (Virtio 1.2, section 2.7.5). A chain is walked once, and no further than its queue has
//! descriptors: `virtio-queue` follows a table of indirect descriptors, up to 65,535 of them, also where the device
//! does not offer that, as this one does not.

use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Error, Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// A piece of guest memory.
#[derive(Clone, Copy, Debug)]
struct Buffer {
    address: GuestAddress,
    len: usize,
}

/// A chain of buffers that the guest made available.
#[derive(Debug)]
pub struct Chain<'m> {
    memory: &'m GuestMemoryMmap,
    head: u16,
    /// For the device to read.
    readable: Vec<Buffer>,
    /// For the device to write.
    writable: Vec<Buffer>,
}

impl<'m> Chain<'m> {
    /// The next chain that the driver made available. The error is a driver that does what it was not offered. A chain
    /// that does not lie in RAM has no buffers.
    pub(super) fn pop(
        queue: &mut Queue,
        memory: &'m GuestMemoryMmap,
    ) -> Result<Option<Self>, Error> {
        let Some(head) = queue.pop_descriptor_chain(memory) else {
            return Ok(None);
        };
        let mut chain = Self {
            memory,
            head: head.head_index(),
            readable: Vec::new(),
            writable: Vec::new(),
        };
        if !chain.walk(queue)? {
            chain.readable.clear();
            chain.writable.clear();
        }
        Ok(Some(chain))
    }

    /// Gathers the buffers. Whether all of them lie in RAM.
    fn walk(&mut self, queue: &Queue) -> Result<bool, Error> {
        let mut index = self.head;
        let mut total_bytes = 0_u32;
        for _ in 0..queue.size() {
            if index >= queue.size() {
                return Ok(true);
            }
            let at = u64::from(index) * size_of::<Descriptor>() as u64;
            let at = queue.desc_table().checked_add(at).map(GuestAddress);
            let read = at.and_then(|at| self.memory.read_obj::<Descriptor>(at).ok());
            let Some(descriptor) = read else {
                return Ok(false);
            };
            if descriptor.refers_to_indirect_table() {
                return Err(Error::InvalidIndirectDescriptor);
            }
            // A chain has 2^32 bytes at most (section 2.7.5.2).
            let Some(total) = total_bytes.checked_add(descriptor.len()) else {
                return Ok(true);
            };
            total_bytes = total;
            let buffer = Buffer {
                address: descriptor.addr(),
                len: descriptor.len() as usize,
            };
            if !self.memory.check_range(buffer.address, buffer.len) {
                return Ok(false);
            }
            if descriptor.is_write_only() {
                self.writable.push(buffer);
            } else {
                self.readable.push(buffer);
            }
            if !descriptor.has_next() {
                return Ok(true);
            }
            index = descriptor.next();
        }
        Ok(true)
    }

    /// Number of its first descriptor, by which the driver gets it back.
    pub(super) fn head(&self) -> u16 {
        self.head
    }

    /// Bytes that the device may read.
    pub fn readable_bytes(&self) -> usize {
        len_bytes(&self.readable)
    }

    /// Bytes that the device may write.
    pub fn writable_bytes(&self) -> usize {
        len_bytes(&self.writable)
    }

    /// Reads from `offset` bytes into what is readable on, and says how much.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> usize {
        let mut done = 0;
        for (at, len) in pieces(&self.readable, offset, into.len()) {
            let piece = &mut into[done..done + len];
            if self.memory.read_slice(piece, at).is_err() {
                break;
            }
            done += len;
        }
        done
    }

    /// Writes `bytes` from `offset` bytes into what is writable on, as far as there is room, and says how much.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> usize {
        let mut done = 0;
        for (at, len) in pieces(&self.writable, offset, bytes.len()) {
            let piece = &bytes[done..done + len];
            if self.memory.write_slice(piece, at).is_err() {
                break;
            }
            done += len;
        }
        done
    }
}

fn len_bytes(buffers: &[Buffer]) -> usize {
    buffers.iter().map(|buffer| buffer.len).sum()
}

/// Where the `len` bytes from `offset` on lie, piece by piece, as far as there are so many.
fn pieces(
    buffers: &[Buffer],
    mut offset: usize,
    mut len: usize,
) -> impl Iterator<Item = (GuestAddress, usize)> {
    buffers.iter().filter_map(move |buffer| {
        let skipped = offset.min(buffer.len);
        offset -= skipped;
        let now = (buffer.len - skipped).min(len);
        len -= now;
        let at = GuestAddress(buffer.address.0 + skipped as u64);
        (now > 0).then_some((at, now))
    })
}
