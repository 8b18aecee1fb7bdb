//! A disk (Virtio 1.2, section 5.2) whose content is in host memory and goes with the machine.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;

use ktstr_vmm::{BadQueue, Chain, GuestQueue, VirtioDevice};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{Device, QemuDevice};

/// Largest disk, in MiB. What a guest writes to it is memory of the host.
pub const MAX_DISK_MIB: u64 = 64 << 10;

/// Features: the limits of a segment and of a request are told, and a driver can flush.
const SIZE_MAX: u64 = 1 << 1;
const SEG_MAX: u64 = 1 << 2;
const FLUSH: u64 = 1 << 9;

/// The limits, for Linux to keep: a request of more than their product is refused.
const MAX_SEGMENT_BYTES: u32 = 64 << 10;
const MAX_SEGMENTS: u32 = 64;
const MAX_REQUEST_BYTES: u64 = MAX_SEGMENT_BYTES as u64 * MAX_SEGMENTS as u64;

/// Requests served in one go, so that a busy disk leaves time for other devices.
const REQUESTS_AT_ONCE: usize = 8;

/// Bytes that are moved at once.
const CHUNK_BYTES: usize = 64 << 10;

const SECTOR_BYTES: u64 = 512;

/// `struct virtio_blk_req` without data and status: type, reserved, sector.
const HEADER_BYTES: usize = 16;

/// Types of requests.
const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH_CACHE: u32 = 4;
const GET_ID: u32 = 8;

/// What the guest reads in `/sys/block/vd*/serial`: 20 bytes.
const SERIAL: &[u8; 20] = b"ktstr\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// An empty, sparse disk: `/dev/vda` for the first. What the guest writes takes memory of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its size, [`MAX_DISK_MIB`] at most.
    pub len_mib: u64,
}

impl Disk {
    fn len_bytes(self) -> u64 {
        self.len_mib.min(MAX_DISK_MIB) << 20
    }

    /// Its content: zeros.
    fn content(self) -> io::Result<File> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = File::from(memfd_create(c"ktstr-disk", flags)?);
        file.set_len(self.len_bytes())?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(file)
    }
}

impl Device for Disk {
    fn kernel_modules(&self) -> &'static [&'static str] {
        &["virtio_blk"]
    }

    fn emulated(&self) -> io::Result<Box<dyn VirtioDevice>> {
        Ok(Box::new(Emulated::new(*self)?))
    }

    fn qemu(&self, id: &str) -> io::Result<QemuDevice> {
        let content = self.content()?;
        let path = format!("/proc/self/fd/{}", content.as_raw_fd());
        Ok(QemuDevice {
            args: vec![
                (
                    "-blockdev",
                    format!("driver=file,node-name={id},filename={path},locking=off"),
                ),
                (
                    "-device",
                    format!("virtio-blk-pci-non-transitional,drive={id},serial=ktstr"),
                ),
            ],
            files: vec![content.into()],
        })
    }
}

/// The device of a microVM.
#[derive(Debug)]
pub(crate) struct Emulated {
    content: File,
    len_bytes: u64,
    /// The head of `struct virtio_blk_config`: capacity in sectors, then the two limits.
    config: [u8; 16],
}

/// Why a request was not served, as its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Io = 1,
    Unsupported = 2,
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

impl Emulated {
    pub(crate) fn new(disk: Disk) -> io::Result<Self> {
        let len_bytes = disk.len_bytes();
        let mut config = [0; 16];
        config[..8].copy_from_slice(&(len_bytes / SECTOR_BYTES).to_le_bytes());
        config[8..12].copy_from_slice(&MAX_SEGMENT_BYTES.to_le_bytes());
        config[12..].copy_from_slice(&MAX_SEGMENTS.to_le_bytes());
        Ok(Self {
            content: disk.content()?,
            len_bytes,
            config,
        })
    }

    /// Serves a request; how much of its chain was written to.
    fn serve(&self, chain: &Chain<'_>) -> usize {
        // The last byte that can be written is for the status.
        let Some(room) = chain.writable_bytes().checked_sub(1) else {
            return 0;
        };
        let (written, status) = match self.request(chain, room) {
            Ok(written) => (written, 0),
            Err(refusal) => (0, refusal as u8),
        };
        written + chain.write(room, &[status])
    }

    /// Does what a request asks; how many of the `room` bytes for its answer were written.
    fn request(&self, chain: &Chain<'_>, room: usize) -> Result<usize, Refusal> {
        let mut header = [0; HEADER_BYTES];
        if chain.read(0, &mut header) < HEADER_BYTES {
            return Err(Refusal::Io);
        }
        let [a, b, c, d, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        match u32::from_le_bytes([a, b, c, d]) {
            READ => {
                let start = self.start(sector, room)?;
                self.read(chain, start, room)
            }
            WRITE => {
                let len = chain.readable_bytes() - HEADER_BYTES;
                let start = self.start(sector, len)?;
                self.write(chain, start, len).map(|()| 0)
            }
            // The content is in memory: there is no cache.
            FLUSH_CACHE => Ok(0),
            GET_ID => Ok(chain.write(0, &SERIAL[..SERIAL.len().min(room)])),
            _ => Err(Refusal::Unsupported),
        }
    }

    /// Where `len` bytes from `sector` on begin, if the disk has them.
    fn start(&self, sector: u64, len: usize) -> Result<u64, Refusal> {
        let len = len as u64;
        let start = sector.checked_mul(SECTOR_BYTES);
        let inside = |start: &u64| {
            start
                .checked_add(len)
                .is_some_and(|end| end <= self.len_bytes)
        };
        if len > MAX_REQUEST_BYTES || !len.is_multiple_of(SECTOR_BYTES) {
            return Err(Refusal::Io);
        }
        start.filter(inside).ok_or(Refusal::Io)
    }

    fn read(&self, chain: &Chain<'_>, start: u64, len: usize) -> Result<usize, Refusal> {
        let mut chunk = vec![0; CHUNK_BYTES.min(len)];
        let mut done = 0;
        while done < len {
            let now = chunk.len().min(len - done);
            let piece = &mut chunk[..now];
            self.content.read_exact_at(piece, start + done as u64)?;
            if chain.write(done, piece) < now {
                return Err(Refusal::Io);
            }
            done += now;
        }
        Ok(len)
    }

    fn write(&self, chain: &Chain<'_>, start: u64, len: usize) -> Result<(), Refusal> {
        let mut chunk = vec![0; CHUNK_BYTES.min(len)];
        let mut done = 0;
        while done < len {
            let now = chunk.len().min(len - done);
            let piece = &mut chunk[..now];
            if chain.read(HEADER_BYTES + done, piece) < now {
                return Err(Refusal::Io);
            }
            self.content.write_all_at(piece, start + done as u64)?;
            done += now;
        }
        Ok(())
    }
}

impl VirtioDevice for Emulated {
    fn id(&self) -> u16 {
        2
    }

    /// Mass storage controller, SCSI: what QEMU's has, too.
    fn pci_class(&self) -> [u8; 3] {
        [0x00, 0x00, 0x01]
    }

    fn features(&self) -> u64 {
        SIZE_MAX | SEG_MAX | FLUSH
    }

    fn queue_count(&self) -> u16 {
        1
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn process_queue(&mut self, _: usize, queue: &mut GuestQueue<'_>) -> Result<bool, BadQueue> {
        for _ in 0..REQUESTS_AT_ONCE {
            let Some(chain) = queue.pop()? else {
                return Ok(false);
            };
            let written = self.serve(&chain);
            queue.give_back(&chain, written)?;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::DiskGuest;

    #[test]
    fn what_is_written_is_read_and_the_rest_is_zeros() {
        let mut guest = DiskGuest::new(8);
        assert_eq!(guest.read(0, 1024), (0, vec![0; 1024]));
        assert_eq!(guest.write(16383, &[7; 512]), 0);
        assert_eq!(guest.read(16383, 512), (0, vec![7; 512]));
        assert_eq!(guest.read(16382, 512), (0, vec![0; 512]));
        assert_eq!(guest.write(16384, &[7; 512]), 1);
        // More than the ring holds.
        for sector in 0..40_u8 {
            assert_eq!(guest.write(sector.into(), &[sector; 512]), 0);
        }
        assert_eq!(guest.read(39, 512), (0, vec![39; 512]));
    }

    #[test]
    fn it_tells_its_size_and_its_name() {
        let disk = Emulated::new(Disk { len_mib: 3 }).unwrap();
        assert_eq!(disk.config()[..8], (3_u64 << 11).to_le_bytes());
        let mut guest = DiskGuest::new(3);
        assert_eq!(guest.request(GET_ID, 0, 20, true), 0);
        assert_eq!(guest.data(20), SERIAL);
        assert_eq!(guest.request(FLUSH_CACHE, 0, 0, false), 0);
    }

    #[test]
    fn a_request_that_is_larger_than_allowed_is_refused() {
        let mut guest = DiskGuest::new(64);
        let len = u32::try_from(MAX_REQUEST_BYTES).unwrap();
        assert_eq!(guest.request(WRITE, 0, len + 512, false), 1);
    }
}
