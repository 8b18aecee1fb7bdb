//! The signal that gets a thread out of the guest.

use std::io;
use std::sync::Once;

use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

/// The handler does nothing: that the signal is caught makes `KVM_RUN` return.
pub(crate) fn install_kick_handler() -> io::Result<()> {
    extern "C" fn kicked(
        _: nix::libc::c_int,
        _: *mut nix::libc::siginfo_t,
        _: *mut nix::libc::c_void,
    ) {
    }
    static INSTALL: Once = Once::new();
    let mut result = Ok(());
    INSTALL.call_once(|| {
        result = register_signal_handler(SIGRTMIN(), kicked)
            .map_err(|error| io::Error::from_raw_os_error(error.errno()));
    });
    result
}
