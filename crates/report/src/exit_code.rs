//! Exit codes of the command, stable across versions.

/// What `cargo ktstr` exits with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Every test passed or was skipped.
    Ok = 0,
    /// At least one test failed: the thing under test is at fault.
    TestFailed = 1,
    /// No test failed, but at least one was inconclusive.
    Inconclusive = 2,
    /// At least one guest died (kernel panic, reset, watchdog) and no test failed otherwise.
    GuestDied = 3,
    /// No test was selected.
    NoTests = 4,
    /// The harness itself failed: a machine could not be set up, a kernel not fetched.
    HarnessFailed = 5,
    /// This host lacks something that the command needs.
    HostUnfit = 6,
    /// The command line was wrong.
    Usage = 64,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}
