//! System calls that have no safe wrapper.
#![expect(unsafe_code, reason = "kexec_load(2) and tgkill(2) have no wrapper")]

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;

/// `struct kexec_segment` of include/uapi/linux/kexec.h.
#[repr(C)]
struct Segment {
    buffer: *const u8,
    buffer_len: usize,
    gpa: usize,
    len: usize,
}

/// Gives the kernel `image`, to be run at its first byte, with `gpa` as its physical address, by
/// `LINUX_REBOOT_CMD_KEXEC`.
pub(crate) fn kexec_load(gpa: usize, image: &[u8]) -> nix::Result<()> {
    let segment = Segment {
        buffer: image.as_ptr(),
        buffer_len: image.len(),
        gpa,
        len: image.len().next_multiple_of(4096),
    };
    // The architecture that runs is meant by 0.
    let (segments, flags) = (1_usize, 0_usize);
    // SAFETY: the kernel reads the one segment and the image that it names, which live until it returns.
    let loaded = unsafe {
        libc::syscall(
            libc::SYS_kexec_load,
            gpa,
            segments,
            &raw const segment,
            flags,
        )
    };
    Errno::result(loaded).map(drop)
}

/// Sends `signal` to the one thread `tid` of `pid`.
pub(crate) fn tgkill(pid: i32, tid: i32, signal: Signal) -> nix::Result<()> {
    // SAFETY: the call takes no pointers.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal as libc::c_int) };
    Errno::result(sent).map(drop)
}
