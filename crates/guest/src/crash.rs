//! The crash channel: what must get out when the framed channel can't be trusted.

#![expect(
    unsafe_code,
    reason = "signal handlers, for faults that leave no other way to speak"
)]

use std::backtrace::Backtrace;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::IntoRawFd;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicI32, Ordering};

use ktstr_wire::CRASH_MARK;
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{Pid, getpid};

const COM2: &str = "/dev/ttyS1";

/// Faults that a handler reports from inside the process.
pub(crate) const HANDLED_SIGNALS: [Signal; 5] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGABRT,
];

/// The process whose crash ends the machine besides PID 1: the test process. Workers are forked from it
/// and inherit the handlers, but their faults are their own.
static TEST_PROCESS: AtomicI32 = AtomicI32::new(0);

/// COM2, for the signal handler, which may not allocate.
static COM2_FD: AtomicI32 = AtomicI32::new(-1);

/// Routes panics and fatal signals of PID 1 to COM2.
pub(crate) fn install() {
    std::panic::set_hook(Box::new(on_panic));
}

/// Counts the calling process as the test process, and routes its fatal signals to COM2.
pub(crate) fn install_in_test_process() {
    TEST_PROCESS.store(getpid().as_raw(), Ordering::Relaxed);
    if let Ok(port) = open_com2() {
        COM2_FD.store(port.into_raw_fd(), Ordering::Relaxed);
    }
    let action = SigAction::new(
        SigHandler::SigAction(on_fatal_signal),
        SaFlags::SA_RESETHAND | SaFlags::SA_NODEFER,
        SigSet::empty(),
    );
    for signal in HANDLED_SIGNALS {
        // SAFETY: the handler only calls async-signal-safe functions (write, getpid) on atomics.
        let installed = unsafe { sigaction(signal, &action) };
        debug_assert!(installed.is_ok(), "{signal} can be caught");
    }
}

/// Writes one crash text to COM2. Best effort: there is nowhere else to complain.
pub(crate) fn report(text: &str) {
    let Ok(mut port) = open_com2() else { return };
    let written = port.write_all(format!("{CRASH_MARK}{text}\n").as_bytes());
    // Without draining, a power-off may overtake the UART.
    if written.is_ok() {
        let _ = nix::sys::termios::tcdrain(&port);
    }
}

fn open_com2() -> std::io::Result<File> {
    File::options().write(true).open(COM2)
}

fn ends_the_machine() -> bool {
    let own = getpid();
    own == Pid::from_raw(1) || own.as_raw() == TEST_PROCESS.load(Ordering::Relaxed)
}

fn on_panic(info: &PanicHookInfo<'_>) {
    if !ends_the_machine() {
        return;
    }
    let place = info
        .location()
        .map_or_else(String::new, |location| format!(" at {location}"));
    let message = info.payload_as_str().unwrap_or("non-string panic payload");
    report(&format!(
        "the test panicked{place}: {message}\n{}",
        Backtrace::force_capture()
    ));
    // A restart is the quickest end: the host runs the machine so that it does not come back.
    let _ = reboot(RebootMode::RB_AUTOBOOT);
}

extern "C" fn on_fatal_signal(
    signal: i32,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    if ends_the_machine() {
        // SAFETY: the kernel passes a valid siginfo to an SA_SIGINFO handler (sigaction(2)).
        let address = unsafe { info.as_ref().map_or(0, |info| info.si_addr() as usize) };
        write_fault(signal, address);
    }
    // SA_RESETHAND: returning runs into the fault again, now with the default action, so that PID 1 sees
    // the true signal. A signal that was sent has no instruction to run into again.
    // SAFETY: raise(3) is async-signal-safe.
    unsafe { libc::raise(signal) };
}

/// Formats without allocating.
fn write_fault(signal: i32, address: usize) {
    let mut text = [0u8; 160];
    let mut rest = &mut text[..];
    let name = Signal::try_from(signal).map_or("an unknown signal", Signal::as_str);
    let _ = writeln!(
        rest,
        "{CRASH_MARK}the test process got {name} at address {address:#x}"
    );
    let left = rest.len();
    let length = text.len() - left;
    let fd = COM2_FD.load(Ordering::Relaxed);
    // SAFETY: the buffer is valid for `length` bytes; a bad descriptor only makes the call fail.
    unsafe { libc::write(fd, text.as_ptr().cast(), length) };
}
