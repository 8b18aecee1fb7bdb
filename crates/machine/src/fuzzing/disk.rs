//! The disk of a microVM, under a driver that does what it likes to its queue.

use arbitrary::{Result, Unstructured};
use ktstr_vmm::{GuestQueue, VirtioDevice as _};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::devices::{Disk, EmulatedDisk};

const RAM_BYTES: u64 = 8 << 20;
/// Where the input writes: the queue lies there.
const REACH_BYTES: u64 = 1 << 20;
const PAGE_BYTES: u64 = 4096;
const QUEUE_SIZE: u16 = 16;

/// Where the parts of the queue lie, then the buffers of [`Guest::request`].
const DESCRIPTORS: u64 = 0;
const AVAILABLE: u64 = PAGE_BYTES;
const USED: u64 = 2 * PAGE_BYTES;
const HEADER: u64 = 3 * PAGE_BYTES;
const STATUS: u64 = HEADER + 16;
const DATA: u64 = 4 * PAGE_BYTES;

const SECTOR_BYTES: usize = 512;
/// Flags of a descriptor.
const NEXT: u16 = 1;
const WRITABLE: u16 = 2;

const READ: u32 = 0;
const WRITE: u32 = 1;
const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;
/// What the device never writes as a status.
const NO_STATUS: u8 = 0xaa;

/// Requests, descriptors and rings of any content in any order. What was written to the disk is read from it, a
/// request beyond its end or of an unknown type is refused, and a driver that behaves is served, whatever was before.
pub fn disk(input: &[u8]) {
    let mut guest = Guest::new(1);
    // Ends early where the input ends within an operation.
    let _ = run(&mut guest, &mut Unstructured::new(input));
    guest.set_up();
    let pattern: Vec<u8> = (0..251).cycle().take(4 * SECTOR_BYTES).collect();
    assert_eq!(guest.write(3, &pattern), OK);
    assert_eq!(guest.read(3, pattern.len()), (OK, pattern));
    let last = (1 << 20) / SECTOR_BYTES as u64 - 1;
    assert_eq!(guest.write(last, &[1; SECTOR_BYTES]), OK);
    assert_eq!(guest.write(last, &[1; 2 * SECTOR_BYTES]), IO_ERROR);
    assert_eq!(guest.write(u64::MAX, &[1; SECTOR_BYTES]), IO_ERROR);
    assert_eq!(guest.write(0, &[1; SECTOR_BYTES - 1]), IO_ERROR);
    assert_eq!(guest.request(99, 0, 0, false), UNSUPPORTED);
}

fn run(guest: &mut Guest, input: &mut Unstructured<'_>) -> Result<()> {
    while !input.is_empty() {
        match input.arbitrary::<u8>()? % 8 {
            0 => {
                let at = u64::from(input.arbitrary::<u32>()?) % REACH_BYTES;
                let len = usize::from(input.arbitrary::<u8>()?);
                guest.put(at, input.bytes(len)?);
            }
            1 | 2 => {
                let [index, flags, next, high]: [u8; 4] = input.arbitrary()?;
                let [address, len]: [u32; 2] = input.arbitrary()?;
                let address = match high {
                    0..0xf0 => u64::from(address) % (REACH_BYTES + PAGE_BYTES),
                    _ => u64::MAX - u64::from(address),
                };
                let len = if high & 1 == 0 { len % 0x4000 } else { len };
                let (flags, next) = (u16::from(flags % 8), u16::from(next % 20));
                guest.describe(index.into(), address, len, flags, next);
            }
            3 => {
                let [part, at]: [u8; 2] = input.arbitrary()?;
                let word: u16 = input.arbitrary()?;
                let ring = if part & 1 == 0 { AVAILABLE } else { USED };
                guest.put(ring + u64::from(at % 64), &word.to_le_bytes());
            }
            4 => {
                let [kind, len, writable]: [u8; 3] = input.arbitrary()?;
                let sector: u16 = input.arbitrary()?;
                let len = u32::from(len) * 256;
                let kind = u32::from(kind % 14);
                guest.request(kind, sector.into(), len, writable & 1 == 0);
            }
            5 => guest.offer(input.arbitrary::<u8>()?.into()),
            6 => guest.set_up(),
            _ => _ = guest.process(),
        }
    }
    Ok(())
}

/// A machine's memory with the queue of a disk in it.
pub(crate) struct Guest {
    memory: GuestMemoryMmap,
    queue: Queue,
    disk: EmulatedDisk,
    next: u16,
}

impl Guest {
    pub(crate) fn new(len_mib: u64) -> Self {
        let ram_bytes = usize::try_from(RAM_BYTES).expect("a few MiB");
        let memory =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), ram_bytes)]).expect("a few MiB");
        let mut guest = Self {
            memory,
            queue: Queue::new(QUEUE_SIZE).expect("a power of two"),
            disk: EmulatedDisk::new(Disk { len_mib }).expect("a memfd"),
            next: 0,
        };
        guest.set_up();
        guest
    }

    /// What a driver does after a reset.
    pub(crate) fn set_up(&mut self) {
        self.disk.reset();
        self.next = 0;
        self.put(DESCRIPTORS, &[0; 3 * 4096]);
        self.queue = Queue::new(QUEUE_SIZE).expect("a power of two");
        let low = |at: u64| u32::try_from(at).ok();
        self.queue.set_desc_table_address(low(DESCRIPTORS), Some(0));
        self.queue.set_avail_ring_address(low(AVAILABLE), Some(0));
        self.queue.set_used_ring_address(low(USED), Some(0));
        self.queue.set_ready(true);
    }

    /// Whether the device takes what is in the queue.
    fn process(&mut self) -> bool {
        let queue = GuestQueue::new(&mut self.queue, &self.memory);
        queue.is_ok_and(|mut queue| {
            // More than a driver that behaves has in its queue.
            (0..3).all(|_| self.disk.process_queue(0, &mut queue).is_ok())
        })
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(at))
            .expect("it lies in RAM");
    }

    fn describe(&self, index: u64, address: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.put(DESCRIPTORS + index % u64::from(QUEUE_SIZE) * 16, &bytes);
    }

    /// Makes a chain available.
    fn offer(&mut self, head: u16) {
        let at = AVAILABLE + 4 + u64::from(self.next % QUEUE_SIZE) * 2;
        self.put(at, &head.to_le_bytes());
        self.next = self.next.wrapping_add(1);
        self.put(AVAILABLE + 2, &self.next.to_le_bytes());
    }

    /// A request as a driver makes it; its status.
    pub(crate) fn request(&mut self, kind: u32, sector: u64, len: u32, writable: bool) -> u8 {
        let mut header = kind.to_le_bytes().to_vec();
        header.extend([0; 4]);
        header.extend(sector.to_le_bytes());
        self.put(HEADER, &header);
        self.put(STATUS, &[NO_STATUS]);
        let flags = NEXT | if writable { WRITABLE } else { 0 };
        self.describe(0, HEADER, 16, NEXT, 1);
        self.describe(1, DATA, len, flags, 2);
        self.describe(2, STATUS, 1, WRITABLE, 0);
        self.offer(0);
        self.process();
        self.memory.read_obj(GuestAddress(STATUS)).expect("RAM")
    }

    pub(crate) fn write(&mut self, sector: u64, bytes: &[u8]) -> u8 {
        self.put(DATA, bytes);
        let len = u32::try_from(bytes.len()).expect("it fits into RAM");
        self.request(WRITE, sector, len, false)
    }

    /// The status, and what was read.
    pub(crate) fn read(&mut self, sector: u64, len: usize) -> (u8, Vec<u8>) {
        self.put(DATA, &vec![NO_STATUS; len]);
        let status = self.request(READ, sector, u32::try_from(len).expect("it fits"), true);
        (status, self.data(len))
    }

    /// What is in the buffer of the last request.
    pub(crate) fn data(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory
            .read_slice(&mut bytes, GuestAddress(DATA))
            .expect("RAM");
        bytes
    }
}
