//! How devices interrupt the guest: by a message, or by a line.

use std::{fmt, io};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};

/// Where interrupt messages go.
pub(crate) trait MsiSink: Send + Sync + fmt::Debug {
    /// Delivers `data` written to `address`. A message to nowhere is lost, as on hardware.
    fn send(&self, address: u64, data: u32);
}

/// An event for an interrupt line. No program that this process starts gets it.
pub(crate) fn line() -> io::Result<EventFd> {
    EventFd::new(EFD_CLOEXEC)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn fault_d6_a_line_is_closed_in_programs_that_this_process_starts() {
        let line = line().unwrap();
        let info = format!("/proc/self/fdinfo/{}", line.as_raw_fd());
        let info = std::fs::read_to_string(info).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = i32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
        assert_ne!(flags & nix::libc::O_CLOEXEC, 0, "{info}");
    }
}
