//! Kernel memory by virtual address, over a reader of guest-physical memory.
//!
//! The guest runs while it is read. A read copies out; whether what was copied belongs together is for the
//! caller to check. Nothing that a page table says can make a walk run on: its depth is that of the format.

mod kaslr;
mod kernel_memory;
mod paging;
mod phys;

pub use kaslr::{Evidence, Kaslr, KaslrError, Source};
pub use kernel_memory::{AttachError, KernelMemory, MemoryError};
pub use paging::{PageTables, PagingError, PagingLevels, Translation};
pub use phys::{Dump, PhysError, PhysRead, PhysWrite};

/// Where the kernel's image is linked to begin, less the distance of its text (`__START_KERNEL_map`,
/// `arch/x86/include/asm/page_64_types.h`). The virtual address `a` of the image is at the physical address
/// `a - START_KERNEL_MAP + phys_base`.
pub const START_KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
/// The most that the image and its slide take up (`KERNEL_IMAGE_SIZE` with `CONFIG_RANDOMIZE_BASE`). Modules
/// follow.
pub const KERNEL_IMAGE_BYTES: u64 = 1 << 30;
/// Where an image can be put, virtually and physically, is a multiple of this
/// (`MIN_KERNEL_ALIGN`, `arch/x86/include/asm/boot.h`).
pub const KERNEL_ALIGN: u64 = 2 << 20;
