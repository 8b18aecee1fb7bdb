//! Memory of the host: how much there is, how much is left, and how much of it a process has in guest RAM.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use ktstr_vmm::RAM_NAME;

use crate::performance::{HUGE_PAGE_MIB, HUGE_PAGES, HugePages};

/// Memory of the host, as its kernel tells it at one moment. What the kernel doesn't tell is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostMemory {
    /// `MemTotal` of /proc/meminfo, in MiB.
    pub total_mib: Option<u64>,
    /// `MemAvailable` of /proc/meminfo, in MiB: what programs can get without swapping.
    pub available_mib: Option<u64>,
    /// Pages of 2 MiB that nobody has or was promised.
    pub free_huge_pages: Option<u64>,
}

impl HostMemory {
    /// Asks the kernel.
    pub fn now() -> Self {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let pages = HugePages::read(Path::new(HUGE_PAGES)).ok();
        Self {
            total_mib: field_mib(&meminfo, "MemTotal:"),
            available_mib: field_mib(&meminfo, "MemAvailable:"),
            free_huge_pages: pages.map(|pages| pages.free),
        }
    }
}

/// A field of /proc/meminfo (proc_meminfo(5)), which is in KiB.
fn field_mib(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

/// Guest RAM for which the host has given pages already. The rest is taken when a guest touches it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TouchedRam {
    /// In plain pages, in MiB.
    pub mib: u64,
    /// In huge pages, their number.
    pub huge_pages: u64,
}

/// Guest RAM of all machines of process `pid` that has been touched. It fails for a process of another user.
pub fn touched_ram(pid: u32) -> io::Result<TouchedRam> {
    /// `st_blocks` counts blocks of this size, whatever the file system's are (stat(3type)).
    const BLOCK_BYTES: u64 = 512;
    let name = format!("/memfd:{}", RAM_NAME.to_string_lossy());
    let mut seen = HashSet::new();
    let mut plain_bytes = 0_u64;
    let mut huge_bytes = 0_u64;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        let is_ram = fs::read_link(&path)
            .is_ok_and(|target| target.to_string_lossy().starts_with(name.as_str()));
        // It may be closed meanwhile.
        let Some(file) = is_ram.then(|| fs::metadata(&path).ok()).flatten() else {
            continue;
        };
        if !seen.insert((file.dev(), file.ino())) {
            continue;
        }
        let bytes = file.blocks().saturating_mul(BLOCK_BYTES);
        // The block size of hugetlbfs is its page size.
        if file.blksize() >= HUGE_PAGE_MIB << 20 {
            huge_bytes = huge_bytes.saturating_add(bytes);
        } else {
            plain_bytes = plain_bytes.saturating_add(bytes);
        }
    }
    Ok(TouchedRam {
        mib: plain_bytes >> 20,
        huge_pages: huge_bytes / (HUGE_PAGE_MIB << 20),
    })
}

#[cfg(test)]
mod tests {
    use ktstr_vmm::NodeMemory;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn what_the_kernel_does_not_tell_is_not_known() {
        let meminfo = "MemTotal:  4194304 kB\nMemAvailable:   2097152 kB\n";
        assert_eq!(field_mib(meminfo, "MemTotal:"), Some(4096));
        assert_eq!(field_mib(meminfo, "MemAvailable:"), Some(2048));
        for nonsense in ["", "MemTotal:", "MemTotal: x kB", "MemTotal: 5 MB"] {
            assert_eq!(field_mib(nonsense, "MemTotal:"), None, "{nonsense:?}");
        }
        let now = HostMemory::now();
        assert!(now.available_mib <= now.total_mib, "{now:?}");
    }

    #[test]
    fn only_guest_ram_that_was_touched_counts_and_only_once() {
        let untouched = touched_ram(std::process::id()).unwrap();
        let ram = NodeMemory::new(64 << 20).unwrap();
        let other = File::from(memfd_create(c"something", MFdFlags::empty()).unwrap());
        let twice = File::from(std::os::fd::AsFd::as_fd(&ram).try_clone_to_owned().unwrap());
        assert_eq!(touched_ram(std::process::id()).unwrap(), untouched);
        let page = vec![1; 5 << 20];
        twice.write_all_at(&page, 0).unwrap();
        other.write_all_at(&page, 0).unwrap();
        let touched = touched_ram(std::process::id()).unwrap();
        assert_eq!(touched.mib, untouched.mib + 5);
    }
}
