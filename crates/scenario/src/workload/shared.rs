//! Memory that a harness and its forked workers share.
#![expect(
    unsafe_code,
    reason = "a shared anonymous mapping is viewed as a slice of atomics"
)]

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Types made of atomics only, for which all-zero bytes are a value.
///
/// # Safety
/// Other processes write to it at any time: every byte must be part of an atomic or of padding.
pub(super) unsafe trait Shareable {}

// SAFETY: an atomic; zero is a value.
unsafe impl Shareable for AtomicU32 {}

// SAFETY: an atomic; zero is a value.
unsafe impl Shareable for AtomicU8 {}

/// What a worker's report may take: 256 bytes of figures, lists of CPUs (one for each mask that it had), a
/// panic's message.
pub(super) const REPORT_CAPACITY: usize = 64 * 1024;

/// One worker's part of the shared memory. Alone on its cache lines, two at a time, since processors
/// prefetch them in pairs.
#[repr(C, align(128))]
pub(super) struct Slot {
    /// How far the worker has come: one of the constants in `seat`.
    pub(super) stage: AtomicU32,
    /// Its thread id.
    pub(super) tid: AtomicI32,
    /// Figures that the worker keeps up to date while it works.
    pub(super) published: Published,
    /// Twice the number of changes of its mask; odd while one is under way.
    pub(super) mask_epoch: AtomicU32,
    /// Bytes of `report` that are valid; set last.
    pub(super) report_len: AtomicU32,
    /// The report, as postcard.
    pub(super) report: [AtomicU8; REPORT_CAPACITY],
}

// SAFETY: every field is an atomic or an array of them; zero is a value of each.
unsafe impl Shareable for Slot {}

/// What a worker tells about itself at each iteration, to be read at any moment.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Published {
    /// Iterations so far.
    pub(super) iterations: AtomicU64,
    /// Units of work so far.
    pub(super) work_units: AtomicU64,
    /// Changes of its CPU so far.
    pub(super) migrations: AtomicU64,
    /// When the iteration that is under way began, or is to begin, in CLOCK_MONOTONIC ns; 0 before the first.
    pub(super) busy_since_ns: AtomicU64,
    /// Longest gap since the last reading, which sets it to 0.
    pub(super) max_gap_ns: AtomicU64,
    /// Wake-ups so far.
    pub(super) wakes: AtomicU64,
    /// Longest wake latency since the last reading, which sets it to 0.
    pub(super) max_wake_ns: AtomicU64,
}

/// A piece of the memory that the workers of a group share, zeroed at first. What is in it is for the work type to say.
/// Alone on its cache lines, as a slot is.
#[derive(Debug)]
#[repr(C, align(128))]
pub(super) struct GroupCell {
    pub(super) futex: AtomicU32,
    pub(super) word: AtomicU64,
}

// SAFETY: both fields are atomics; zero is a value of each.
unsafe impl Shareable for GroupCell {}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("stage", &self.stage)
            .field("tid", &self.tid)
            .field("published", &self.published)
            .finish_non_exhaustive()
    }
}

/// A slice in a shared anonymous mapping, zeroed at first. It stays shared with the children of forks.
pub(super) struct Shared<T: Shareable> {
    start: NonNull<T>,
    len: usize,
}

// SAFETY: the mapping is owned, stays where it is until dropped, and holds atomics only.
unsafe impl<T: Shareable> Send for Shared<T> {}
// SAFETY: as above; all access is atomic.
unsafe impl<T: Shareable> Sync for Shared<T> {}

impl<T: Shareable> Shared<T> {
    /// Maps room for `len` values, at least one.
    pub(super) fn new(len: usize) -> nix::Result<Self> {
        let bytes = len
            .max(1)
            .checked_mul(size_of::<T>())
            .and_then(NonZeroUsize::new)
            .ok_or(nix::errno::Errno::ENOMEM)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe {
            mmap_anonymous(
                None,
                bytes,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
            )
        }?;
        Ok(Self {
            start: start.cast(),
            len,
        })
    }
}

impl<T: Shareable> Deref for Shared<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping holds `len` values, is page-aligned (more than any T here needs), zeroed,
        // which T allows, and lives as long as `self`.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Shareable> Drop for Shared<T> {
    fn drop(&mut self) {
        let bytes = self.len.max(1) * size_of::<T>();
        // SAFETY: start and length are those of the mapping, and no reference outlives `self`. It can
        // only fail on arguments that are not a mapping.
        let _ = unsafe { munmap(self.start.cast(), bytes) };
    }
}

impl<T: Shareable> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("len", &self.len).finish()
    }
}
