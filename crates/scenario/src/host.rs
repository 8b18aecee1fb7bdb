//! Asking the host for what only it can do.

use std::fmt;
use std::io;

use ktstr_report::Phase;

/// What the host does at a test's request. The guest's runtime implements it.
pub trait Host: fmt::Debug + Send + Sync {
    /// Has the host read the state of the kernel, and returns when it has. Says whether it could.
    fn capture_snapshot(&self, label: &str) -> io::Result<bool>;

    /// Tells the host that a phase of the body begins or ends now, and returns when it has been told.
    fn phase(&self, phase: Phase, begins: bool) -> io::Result<()>;

    /// Has the host write `value` into the global variable of a BPF program at `path`, and returns when it
    /// has. Says whether it could.
    fn write_global(&self, path: &str, value: i128) -> io::Result<bool>;
}

/// The host did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// This process has no host: it runs in no machine of the harness.
    #[error("there is no host to {what}: the test does not run in a machine")]
    NoHost {
        /// What it was asked for.
        what: String,
    },
    /// It could not.
    #[error("the host could not {what}; the report's remarks say why")]
    Refused {
        /// What it was asked for.
        what: String,
    },
    /// The link to the host failed.
    #[error("can't ask the host to {what}")]
    Link {
        /// What it was to be asked for.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}
