//! Guest RAM, as seen from the host while the guest runs.
#![expect(
    unsafe_code,
    reason = "guest RAM is a shared mapping that the guest writes at any time; it is made, read and undone here"
)]

use std::ffi::CStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};

/// Name of guest RAM in `/proc/PID/maps`: `/memfd:ktstr-ram`.
pub(crate) const RAM_NAME: &CStr = c"ktstr-ram";

const WORD_BYTES: usize = size_of::<u64>();

/// Read-only access to a guest's RAM. Clones share it; it stays readable after the machine ended.
///
/// The guest writes while we read: a copy may be torn, except that each naturally aligned 64-bit word of
/// guest memory is read at once.
#[derive(Clone)]
pub struct GuestMemory {
    inner: Arc<Regions>,
}

struct Regions {
    // In ascending order of guest-physical address, without overlap.
    regions: Vec<Region>,
    mappings: Vec<Mapping>,
}

/// Consecutive guest-physical addresses that lie consecutively in one mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    /// First guest-physical address.
    pub(crate) gpa: u64,
    /// Length in bytes.
    pub(crate) len: u64,
    /// Which backing file.
    pub(crate) file: usize,
    /// Where it starts in that file.
    pub(crate) offset: u64,
}

/// The address is not guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("guest-physical {gpa:#x} is not RAM of the guest (in a read of {len} bytes at {start:#x})")]
pub struct MemoryError {
    /// First address of the read that is not RAM.
    pub gpa: u64,
    /// Where the read began.
    pub start: u64,
    /// Its length in bytes.
    pub len: usize,
}

impl GuestMemory {
    /// Fills `into` from guest-physical address `gpa` on. On an error, `into` may be partly filled.
    pub fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let len = into.len();
        let mut at = gpa;
        let mut rest = into;
        while !rest.is_empty() {
            let not_ram = MemoryError {
                gpa: at,
                start: gpa,
                len,
            };
            let (mapping, offset, room) = self.find(at).ok_or(not_ram)?;
            let (now, later) = rest.split_at_mut(room.min(rest.len()));
            mapping.read(offset, now);
            // Only a read that goes on past the address space can fail here.
            if !later.is_empty() {
                at = at.checked_add(now.len() as u64).ok_or(not_ram)?;
            }
            rest = later;
        }
        Ok(())
    }

    /// The guest-physical addresses that are RAM, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.inner
            .regions
            .iter()
            .map(|region| region.gpa..region.gpa + region.len)
    }

    /// Guest RAM in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.inner.regions.iter().map(|region| region.len).sum()
    }

    /// Maps `files` in which `regions` lie.
    pub(crate) fn map(files: &[RamFile], regions: Vec<Region>) -> io::Result<Self> {
        let mappings = files
            .iter()
            .map(Mapping::new)
            .collect::<io::Result<Vec<_>>>()?;
        let fits = |region: &Region| {
            let end = region.offset.checked_add(region.len);
            mappings
                .get(region.file)
                .zip(end)
                .is_some_and(|(mapping, end)| end <= mapping.len.get() as u64)
        };
        if !regions.iter().all(fits) {
            return Err(io::Error::other("a RAM region lies outside its file"));
        }
        Ok(Self {
            inner: Arc::new(Regions { regions, mappings }),
        })
    }

    /// The mapping and offset at which `gpa` lies, and the bytes from there to the region's end.
    fn find(&self, gpa: u64) -> Option<(&Mapping, usize, usize)> {
        let regions = &self.inner.regions;
        let after = regions.partition_point(|region| region.gpa <= gpa);
        let region = regions.get(after.checked_sub(1)?)?;
        let into = gpa - region.gpa;
        let room = region.len.checked_sub(into).filter(|&room| room > 0)?;
        let mapping = &self.inner.mappings[region.file];
        let offset = usize::try_from(region.offset + into).ok()?;
        Some((mapping, offset, usize::try_from(room).ok()?))
    }
}

impl fmt::Debug for GuestMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ranges()).finish()
    }
}

/// Memory without a name in any file system, of a size that nobody can change.
#[derive(Debug)]
pub(crate) struct RamFile {
    pub(crate) fd: OwnedFd,
    len: NonZeroUsize,
}

impl RamFile {
    /// `len_bytes` of zeros. Pages are taken from the host only when they are first touched.
    pub(crate) fn new(len_bytes: u64) -> io::Result<Self> {
        let len = usize::try_from(len_bytes)
            .ok()
            .and_then(NonZeroUsize::new)
            .ok_or_else(|| io::Error::other("guest RAM of no or an impossible size"))?;
        let fd = memfd_create(
            RAM_NAME,
            MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
        )?;
        let file = File::from(fd);
        file.set_len(len_bytes)?;
        // A file that shrinks under a mapping means SIGBUS for the reader.
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(Self {
            fd: file.into(),
            len,
        })
    }
}

struct Mapping {
    start: NonNull<u8>,
    len: NonZeroUsize,
}

// SAFETY: a `Mapping` is memory that any thread may read; nothing in it belongs to one thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; it is only read through `Mapping::read`, by volatile reads.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(file: &RamFile) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe {
            mmap(
                None,
                file.len,
                ProtFlags::PROT_READ,
                MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE,
                &file.fd,
                0,
            )
        }?;
        let mapping = Self {
            start: start.cast(),
            len: file.len,
        };
        for advice in [MmapAdvise::MADV_DONTFORK, MmapAdvise::MADV_DONTDUMP] {
            // SAFETY: the range is the mapping just made, which no child process and no core dump needs.
            unsafe { madvise(start, file.len.get(), advice) }?;
        }
        Ok(mapping)
    }

    /// Copies out of the mapping. The caller has checked that `offset + into.len()` is within it; a range
    /// that is not panics.
    fn read(&self, offset: usize, into: &mut [u8]) {
        let end = offset.checked_add(into.len());
        assert!(end.is_some_and(|end| end <= self.len.get()));
        // The mapping is page-aligned, so alignment in it is alignment in memory.
        let to_word = offset.next_multiple_of(WORD_BYTES) - offset;
        let (first, rest) = into.split_at_mut(to_word.min(into.len()));
        let (words, last) = rest.as_chunks_mut::<WORD_BYTES>();
        let words_at = offset + first.len();
        let last_at = words_at + words.len() * WORD_BYTES;
        for (at, byte) in (offset..).zip(first) {
            // SAFETY: `at` is within the mapping, which lives as long as `self`; the read is volatile
            // because the guest writes at any time.
            *byte = unsafe { self.start.add(at).read_volatile() };
        }
        for (at, word) in (words_at..).step_by(WORD_BYTES).zip(words) {
            // SAFETY: as above, and `at` is a multiple of 8 in a page-aligned mapping.
            let value = unsafe { self.start.add(at).cast::<u64>().read_volatile() };
            *word = value.to_ne_bytes();
        }
        for (at, byte) in (last_at..).zip(last) {
            // SAFETY: as for the first bytes.
            *byte = unsafe { self.start.add(at).read_volatile() };
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is exactly the mapping made in `new`; references into it never leave `read`.
        let undone = unsafe { munmap(self.start.cast(), self.len.get()) };
        debug_assert_eq!(undone, Ok(()));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use proptest::prelude::*;

    use super::*;

    const PAGE_BYTES: usize = 4096;
    const PAGE: u64 = PAGE_BYTES as u64;

    /// Two files of two pages each: `[0, 3)` pages of RAM over both, a hole, and the last page above it.
    fn two_nodes() -> (GuestMemory, Vec<u8>) {
        let files = [2 * PAGE, 2 * PAGE].map(|len| RamFile::new(len).unwrap());
        let bytes: Vec<u8> = (0..4 * PAGE).map(|at| (at % 251) as u8).collect();
        for (file, part) in files.iter().zip(bytes.chunks(2 * PAGE_BYTES)) {
            let file = File::from(file.fd.try_clone().unwrap());
            file.write_all_at(part, 0).unwrap();
        }
        let region = |gpa, pages, file, offset| Region {
            gpa,
            len: pages * PAGE,
            file,
            offset,
        };
        let regions = vec![
            region(0, 2, 0, 0),
            region(2 * PAGE, 1, 1, 0),
            region(16 * PAGE, 1, 1, PAGE),
        ];
        (GuestMemory::map(&files, regions).unwrap(), bytes)
    }

    proptest! {
        #[test]
        fn a_read_gives_the_bytes_or_names_the_first_that_is_not_ram(
            gpa in 0..20 * PAGE, len in 0..4 * PAGE_BYTES,
        ) {
            let (memory, bytes) = two_nodes();
            let mut into = vec![0xaa; len];
            let is_ram = |gpa: &u64| memory.ranges().any(|range| range.contains(gpa));
            match (gpa..gpa + len as u64).find(|at| !is_ram(at)) {
                None => {
                    memory.read(gpa, &mut into).unwrap();
                    let file_at = |gpa| if gpa >= 16 * PAGE { gpa - 13 * PAGE } else { gpa };
                    for (gpa, byte) in (gpa..).zip(&into) {
                        prop_assert_eq!(*byte, bytes[usize::try_from(file_at(gpa)).unwrap()]);
                    }
                }
                Some(first) => {
                    let error = memory.read(gpa, &mut into).unwrap_err();
                    prop_assert_eq!(error, MemoryError { gpa: first, start: gpa, len });
                }
            }
        }
    }

    #[test]
    fn addresses_at_the_end_of_the_address_space_are_refused() {
        let (memory, _) = two_nodes();
        assert!(memory.read(u64::MAX, &mut [0; 16]).is_err());
        assert!(memory.read(u64::MAX, &mut []).is_ok());
        assert!(memory.read(5 * PAGE, &mut []).is_ok());
    }

    #[test]
    fn a_region_outside_its_file_is_refused() {
        let file = RamFile::new(PAGE).unwrap();
        let region = Region {
            gpa: 0,
            len: PAGE,
            file: 0,
            offset: 1,
        };
        assert!(GuestMemory::map(&[file], vec![region]).is_err());
    }

    #[test]
    fn the_size_of_guest_ram_can_not_be_changed() {
        let file = RamFile::new(PAGE).unwrap();
        assert!(File::from(file.fd).set_len(1).is_err());
    }
}
