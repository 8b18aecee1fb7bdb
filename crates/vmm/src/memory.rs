//! Guest RAM: one memfd for each NUMA node.
#![expect(
    unsafe_code,
    reason = "hands host addresses of guest RAM to KVM, and remaps file pages over them"
)]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MRemapFlags, MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mremap, munmap};
use nix::sys::statfs::{
    BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, F2FS_SUPER_MAGIC, FsType, HUGETLBFS_MAGIC,
    OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC, fstatfs,
};
use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionCollectionError, GuestRegionMmap,
};

/// Size of a page.
pub(crate) const PAGE_BYTES: u64 = 4096;

/// Name of guest RAM in `/proc/PID/maps`: `/memfd:ktstr-ram`.
pub const RAM_NAME: &CStr = c"ktstr-ram";

/// RAM of one NUMA node: memory without a name in any file system, of a size that nobody can change.
#[derive(Debug)]
pub struct NodeMemory {
    file: File,
    len_bytes: u64,
}

impl NodeMemory {
    /// A memfd of `len_bytes` zeros. Pages are taken from the host when they are first touched.
    pub fn new(len_bytes: u64) -> io::Result<Self> {
        Self::of_pages(len_bytes, MFdFlags::empty())
    }

    /// The same in pages of 2 MiB, all of which are taken from the host now, or this fails: a huge page that
    /// is not there when the guest touches it means SIGBUS.
    pub fn huge(len_bytes: u64) -> io::Result<Self> {
        let node = Self::of_pages(len_bytes, MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB)?;
        let all = nix::libc::off_t::try_from(len_bytes).map_err(io::Error::other)?;
        fallocate(&node.file, FallocateFlags::empty(), 0, all)?;
        Ok(node)
    }

    /// Size of its pages, in KiB, as the kernel says.
    pub fn page_kib(&self) -> io::Result<u64> {
        let bytes = u64::try_from(fstatfs(&self.file)?.block_size());
        bytes.map(|bytes| bytes / 1024).map_err(io::Error::other)
    }

    fn of_pages(len_bytes: u64, pages: MFdFlags) -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING | pages;
        let file = File::from(memfd_create(RAM_NAME, flags)?);
        file.set_len(len_bytes)?;
        // A file that shrinks under a mapping means SIGBUS.
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(Self { file, len_bytes })
    }

    /// Size in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }
}

impl AsFd for NodeMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Consecutive guest-physical addresses that lie consecutively in the memory of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamRegion {
    /// First guest-physical address.
    pub gpa: u64,
    /// Length in bytes.
    pub len_bytes: u64,
    /// NUMA node that it belongs to.
    pub node: u32,
    /// Where it starts in the node's memory, in bytes.
    pub offset_bytes: u64,
}

/// Why guest RAM can't be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The machine has no RAM, or a node of it is not made of whole pages.
    #[error(
        "{len_bytes} bytes of RAM for NUMA node {node}: give each node a multiple of 4096 bytes, and more \
         than 0"
    )]
    Size { node: usize, len_bytes: u64 },
    /// More RAM than addresses.
    #[error("the machine's RAM has more than 2^46 bytes: declare less")]
    TooMuch,
    /// A region that its node doesn't have.
    #[error("the RAM at {gpa:#x} lies outside the memory of NUMA node {node}")]
    OutsideNode { gpa: u64, node: u32 },
    /// The host refused the mapping.
    #[error("can't map {len_bytes} bytes of guest RAM at {gpa:#x}")]
    Map {
        gpa: u64,
        len_bytes: u64,
        #[source]
        source: MmapRegionError,
    },
    /// The regions don't fit together.
    #[error("guest RAM can't be put together")]
    Regions(#[source] GuestRegionCollectionError),
    /// The host refused advice about the mapping.
    #[error("can't exclude guest RAM from core dumps and child processes")]
    Advise(#[source] io::Error),
    /// KVM refused the memory.
    #[error("KVM doesn't take {len_bytes} bytes of guest RAM at {gpa:#x}")]
    Kvm {
        gpa: u64,
        len_bytes: u64,
        #[source]
        source: kvm_ioctls::Error,
    },
}

/// Maps `nodes` where `regions` say, in ascending order of address.
pub(crate) fn map(
    nodes: &[NodeMemory],
    regions: &[RamRegion],
) -> Result<GuestMemoryMmap, MemoryError> {
    let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let mut mapped = Vec::with_capacity(regions.len());
    for region in regions {
        let failed = |source| MemoryError::Map {
            gpa: region.gpa,
            len_bytes: region.len_bytes,
            source,
        };
        let end = region.offset_bytes.checked_add(region.len_bytes);
        let node = nodes
            .get(region.node as usize)
            .filter(|node| end.is_some_and(|end| end <= node.len_bytes))
            .ok_or(MemoryError::OutsideNode {
                gpa: region.gpa,
                node: region.node,
            })?;
        let file = node
            .file
            .try_clone()
            .map_err(|error| failed(MmapRegionError::Mmap(error)))?;
        let len = usize::try_from(region.len_bytes).map_err(|_| MemoryError::TooMuch)?;
        let mapping = MmapRegionBuilder::new(len)
            .with_file_offset(FileOffset::new(file, region.offset_bytes))
            .with_mmap_prot(prot.bits())
            .with_mmap_flags((MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE).bits())
            .build()
            .map_err(failed)?;
        let gpa = GuestAddress(region.gpa);
        mapped.push(GuestRegionMmap::new(mapping, gpa).ok_or(MemoryError::TooMuch)?);
    }
    let memory = GuestMemoryMmap::from_regions(mapped).map_err(MemoryError::Regions)?;
    for region in memory.iter() {
        if let Some(start) = NonNull::new(region.as_ptr()) {
            advise(start, region.size()).map_err(MemoryError::Advise)?;
        }
    }
    Ok(memory)
}

/// Keeps guest RAM out of child processes and core dumps.
fn advise(start: NonNull<u8>, len: usize) -> io::Result<()> {
    for advice in [MmapAdvise::MADV_DONTFORK, MmapAdvise::MADV_DONTDUMP] {
        // SAFETY: the range is a mapping of guest RAM, which no child process and no core dump needs; its
        // content doesn't change by it.
        unsafe { madvise(start.cast(), len, advice) }?;
    }
    Ok(())
}

/// Pages of a file to hold in guest RAM.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pages<'a> {
    /// The file. It must not be changed or shortened while the machine lives.
    pub(crate) file: &'a File,
    /// Where they start in it.
    pub(crate) offset_bytes: u64,
    /// How long they are.
    pub(crate) len_bytes: u64,
}

/// Lays `pages` over guest RAM from `gpa` on, in place of what was there: nothing is copied, what the guest
/// touches is read in, and what it writes is its own. KVM goes by this process's mappings, so it may have the
/// memory already. `false`, and nothing was done, where only copying helps: the ranges are not whole pages, do
/// not lie in one region, the node has large pages, or the file's file system does not keep what is mapped.
pub(crate) fn lay_over(memory: &GuestMemoryMmap, gpa: u64, pages: Pages<'_>) -> io::Result<bool> {
    let bounds = [gpa, pages.offset_bytes, pages.len_bytes];
    if pages.len_bytes == 0 || !bounds.iter().all(|at| at.is_multiple_of(PAGE_BYTES)) {
        return Ok(false);
    }
    if !keeps_what_is_mapped(fstatfs(pages.file)?.filesystem_type()) {
        return Ok(false);
    }
    let Some((target, len)) = host_pages(memory, gpa, pages.len_bytes)? else {
        return Ok(false);
    };
    let Ok(offset) = nix::libc::off_t::try_from(pages.offset_bytes) else {
        return Ok(false);
    };
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
    let mapped = unsafe {
        mmap(
            None,
            len,
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE,
            pages.file,
            offset,
        )
    };
    let Ok(mapped) = mapped else {
        return Ok(false);
    };
    let flags = MRemapFlags::MREMAP_MAYMOVE | MRemapFlags::MREMAP_FIXED;
    let len = len.get();
    // SAFETY: `mapped` is the mapping just made, and `target` whole pages within a mapping of guest RAM, which
    // `memory` owns and unmaps as a whole. Guest RAM is accessed through pointers only, which stay good.
    if let Err(errno) = unsafe { mremap(mapped, len, len, flags, Some(target.cast())) } {
        // SAFETY: it is still where it was, and nobody knows of it.
        let _ = unsafe { munmap(mapped, len) };
        return Err(errno.into());
    }
    advise(target, len)?;
    Ok(true)
}

/// Whether a file of this kind of file system has its pages as long as it is mapped, if nobody on this host changes it.
/// On another host's (NFS, SMB, 9p) or another process's (FUSE) it can shrink, or the other be gone: who reads a page
/// then gets SIGBUS. What is not known to be of this host is taken for one of those.
fn keeps_what_is_mapped(kind: FsType) -> bool {
    /// Those for which nix has no name (include/uapi/linux/magic.h; bcachefs_format.h; OpenZFS's zfs.h).
    const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
    const EROFS_MAGIC: FsType = FsType(0xe0f5_e1e2);
    const SQUASHFS_MAGIC: FsType = FsType(0x7371_7368);
    const BCACHEFS_MAGIC: FsType = FsType(0xca45_1a4e);
    const ZFS_MAGIC: FsType = FsType(0x2fc1_2fc1);
    [
        // ext2 and ext3 have the same.
        EXT4_SUPER_MAGIC,
        XFS_SUPER_MAGIC,
        BTRFS_SUPER_MAGIC,
        F2FS_SUPER_MAGIC,
        TMPFS_MAGIC,
        OVERLAYFS_SUPER_MAGIC,
        RAMFS_MAGIC,
        EROFS_MAGIC,
        SQUASHFS_MAGIC,
        BCACHEFS_MAGIC,
        ZFS_MAGIC,
    ]
    .contains(&kind)
}

/// Where `len_bytes` from `gpa` on are in this process; `None` if not in one region of ordinary pages.
fn host_pages(
    memory: &GuestMemoryMmap,
    gpa: u64,
    len_bytes: u64,
) -> io::Result<Option<(NonNull<u8>, NonZeroUsize)>> {
    let Some(region) = memory.find_region(GuestAddress(gpa)) else {
        return Ok(None);
    };
    let offset = gpa - region.start_addr().0;
    let len = usize::try_from(len_bytes).ok().and_then(NonZeroUsize::new);
    let (Some(len), Ok(offset)) = (len, usize::try_from(offset)) else {
        return Ok(None);
    };
    if len_bytes > region.len() - offset as u64 {
        return Ok(None);
    }
    if let Some(file) = region.file_offset()
        && fstatfs(file.file())?.filesystem_type() == HUGETLBFS_MAGIC
    {
        return Ok(None);
    }
    let start = NonNull::new(region.as_ptr().wrapping_add(offset));
    Ok(start.map(|start| (start, len)))
}

/// Gives `memory` to the virtual machine. The caller keeps it mapped until the machine is closed.
pub(crate) fn give_to(vm: &VmFd, memory: &GuestMemoryMmap) -> Result<(), MemoryError> {
    for (slot, region) in (0..).zip(memory.iter()) {
        let (gpa, len_bytes) = (region.start_addr().0, region.len());
        let slot = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: gpa,
            memory_size: len_bytes,
            userspace_addr: region.as_ptr().addr() as u64,
        };
        // SAFETY: the range is a whole mapping of ours that outlives the virtual machine: both are owned by
        // one `Vm`, which closes the machine first. Nothing else lives in the range.
        unsafe { vm.set_user_memory_region(slot) }.map_err(|source| MemoryError::Kvm {
            gpa,
            len_bytes,
            source,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All of a node's memory, from address 0 on.
    fn region(len_bytes: u64) -> RamRegion {
        RamRegion {
            gpa: 0,
            len_bytes,
            node: 0,
            offset_bytes: 0,
        }
    }

    #[test]
    fn a_node_of_large_pages_is_not_laid_over() {
        let large_pages = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_HUGETLB;
        let file = File::from(memfd_create(c"ktstr-ram", large_pages).unwrap());
        let len_bytes = 4 << 20;
        file.set_len(len_bytes).unwrap();
        let node = NodeMemory { file, len_bytes };
        let regions = [region(len_bytes)];
        let memory = map(&[node], &regions).unwrap();
        let image = NodeMemory::new(PAGE_BYTES).unwrap();
        let pages = Pages {
            file: &image.file,
            offset_bytes: 0,
            len_bytes: PAGE_BYTES,
        };
        assert!(!lay_over(&memory, PAGE_BYTES, pages).unwrap());
    }

    #[test]
    fn fault_e8_what_lies_with_another_host_or_process_is_copied() {
        use nix::sys::statfs::{FUSE_SUPER_MAGIC, NFS_SUPER_MAGIC, SMB_SUPER_MAGIC};
        /// 9p, Ceph, CIFS, Lustre (include/uapi/linux/magic.h; fs/smb/client; Lustre's lustre_user.h).
        const OTHERS: [FsType; 4] = [
            FsType(0x0102_1997),
            FsType(0x00c3_6400),
            FsType(0xff53_4d42),
            FsType(0x0bd0_0bd0),
        ];
        let named = [FUSE_SUPER_MAGIC, NFS_SUPER_MAGIC, SMB_SUPER_MAGIC];
        for kind in OTHERS.into_iter().chain(named) {
            assert!(!keeps_what_is_mapped(kind), "{kind:?}");
        }
        assert!(keeps_what_is_mapped(EXT4_SUPER_MAGIC) && keeps_what_is_mapped(TMPFS_MAGIC));
        // A file system that is not among those that are known to be safe, and can be had anywhere.
        let large = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB;
        let file = File::from(memfd_create(c"image", large).unwrap());
        let len_bytes = 2 << 20;
        file.set_len(len_bytes).unwrap();
        let ram = NodeMemory::new(4 * len_bytes).unwrap();
        let memory = map(&[ram], &[region(4 * len_bytes)]).unwrap();
        let pages = Pages {
            file: &file,
            offset_bytes: 0,
            len_bytes,
        };
        assert!(!lay_over(&memory, PAGE_BYTES, pages).unwrap());
    }
}
