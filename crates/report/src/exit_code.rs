//! Exit codes of the command, stable across versions.

/// What `cargo ktstr` exits with. A run that a signal ended exits with 128 and the signal's number: 130 after ^C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Every test passed, or some passed and others were skipped.
    Ok = 0,
    /// At least one test failed: the thing under test is at fault. Or one was skipped where none may be.
    TestFailed = 1,
    /// No test failed, but at least one was inconclusive.
    Inconclusive = 2,
    /// At least one guest died (kernel panic, reset, watchdog) and no test failed otherwise.
    GuestDied = 3,
    /// No test was selected.
    NoTests = 4,
    /// The harness itself failed: a machine could not be set up.
    HarnessFailed = 5,
    /// This host lacks something that the command needs: a program, a right, room on a disk, the network.
    HostUnfit = 6,
    /// Every test was skipped, so nothing was tested.
    AllSkipped = 7,
    /// The command line, or what a variable of the environment names, is wrong.
    Usage = 64,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}
