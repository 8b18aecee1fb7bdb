//! Keeps the BPF maps of an attached scheduler until the host has read them: they would go with its process,
//! and a scheduler that is disabled leaves at once.

#![expect(
    unsafe_code,
    reason = "bpf(2) has no safe wrapper; it is called for three commands that take and give numbers"
)]

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

// `enum bpf_cmd` (include/uapi/linux/bpf.h).
const BPF_MAP_GET_NEXT_ID: libc::c_long = 12;
const BPF_MAP_GET_FD_BY_ID: libc::c_long = 14;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// `BPF_MAP_TYPE_…` of maps that hold nothing but values: hash 1, array 2, per CPU 5 and 6, LRU 9 and 10. One
/// that holds programs or ops would keep more than itself.
const PLAIN_TYPES: [u32; 6] = [1, 2, 5, 6, 9, 10];

/// More maps than any scheduler has.
const MAX_MAPS: usize = 1024;

/// References to maps.
#[derive(Debug, Default)]
pub(super) struct HeldMaps {
    maps: Vec<OwnedFd>,
}

impl HeldMaps {
    /// All maps of plain values that the kernel has now.
    pub(super) fn all() -> io::Result<Self> {
        let mut held = Self::default();
        let mut id = 0;
        while held.maps.len() < MAX_MAPS {
            // start_id, next_id, open_flags
            let mut next = [id, 0, 0, 0];
            match bpf(BPF_MAP_GET_NEXT_ID, &mut next) {
                Ok(_) => id = next[1],
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
                Err(error) => return Err(error),
            }
            // One that goes in between is not missed.
            if let Ok(map) = open(id)
                && PLAIN_TYPES.contains(&type_of(&map)?)
            {
                held.maps.push(map);
            }
        }
        Ok(held)
    }
}

fn open(id: u32) -> io::Result<OwnedFd> {
    let fd = bpf(BPF_MAP_GET_FD_BY_ID, &mut [id, 0, 0, 0])?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The first field of `struct bpf_map_info`.
fn type_of(map: &OwnedFd) -> io::Result<u32> {
    let mut info = [0_u32; 2];
    let address = info.as_mut_ptr() as u64;
    let fd = u32::try_from(map.as_raw_fd()).map_err(io::Error::other)?;
    let info_bytes = u32::try_from(size_of_val(&info)).map_err(io::Error::other)?;
    // bpf_fd, info_len, info (64 bits, low half first)
    let (low, high) = (address & u64::from(u32::MAX), address >> 32);
    let half = |half: u64| u32::try_from(half).map_err(io::Error::other);
    bpf(
        BPF_OBJ_GET_INFO_BY_FD,
        &mut [fd, info_bytes, half(low)?, half(high)?],
    )?;
    Ok(info[0])
}

/// Calls bpf(2) with the first 16 bytes of a `union bpf_attr`; the kernel takes the rest for zero.
fn bpf(command: libc::c_long, attr: &mut [u32; 4]) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is memory of the size that is told, which the kernel reads and writes before it returns.
    // Where it holds an address, that is of memory of the size told beside it, which lives until then.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of_val(attr),
        )
    };
    match returned {
        -1 => Err(io::Error::last_os_error()),
        returned => Ok(returned),
    }
}
