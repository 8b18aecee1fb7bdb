//! Asking the host for a snapshot.

use std::fmt;
use std::io;

/// What the host does at a test's request. The guest's runtime implements it.
pub trait Host: fmt::Debug + Send + Sync {
    /// Has the host read the state of the kernel, and returns when it has. Says whether it could.
    fn capture_snapshot(&self, label: &str) -> io::Result<bool>;
}

/// The host took no snapshot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// This process has no host: it runs in no machine of the harness.
    #[error("there is no host to take the snapshot `{label}`: the test does not run in a machine")]
    NoHost {
        /// What the snapshot was to be called.
        label: String,
    },
    /// The host can't see into the kernel, or has as many snapshots as it keeps.
    #[error("the host could not take the snapshot `{label}`; the report's remarks say why")]
    Refused {
        /// What the snapshot was to be called.
        label: String,
    },
    /// The link to the host failed.
    #[error("can't ask the host for the snapshot `{label}`")]
    Link {
        /// What the snapshot was to be called.
        label: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}
