//! The files of the queue: each says who its owner is, and is locked as long as that process lives.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ktstr_machine::HUGE_PAGE_MIB;
use serde::{Deserialize, Serialize};

use super::waiting::QueueError;
use crate::millis::millis;

/// Longest file that is read.
const MAX_BYTES: u64 = 64 << 10;

/// What a process says of itself and of its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The process.
    pub pid: u32,
    /// The test, or what else the machine is for.
    pub test: String,
    /// The engine's name.
    pub engine: String,
    /// Guest RAM in plain pages, in MiB.
    #[serde(default)]
    pub memory_mib: u64,
    /// Guest RAM in huge pages of 2 MiB, their number.
    #[serde(default)]
    pub huge_pages: u64,
    /// Host CPUs that the machine keeps busy.
    pub host_cpus: u32,
    /// Which ones, where it has them for itself.
    #[serde(default)]
    pub own_cpus: Vec<u32>,
    /// Since when it runs or waits, in milliseconds since 1970-01-01 UTC.
    pub since_unix_ms: u64,
}

impl Claim {
    /// A claim of this process, without memory.
    pub fn new(test: &str, engine: &str, host_cpus: u32) -> Self {
        Self {
            pid: std::process::id(),
            test: test.to_owned(),
            engine: engine.to_owned(),
            memory_mib: 0,
            huge_pages: 0,
            host_cpus,
            own_cpus: Vec::new(),
            since_unix_ms: 0,
        }
    }

    /// A claim to guest RAM of `mib` as well, in huge pages or not.
    #[must_use]
    pub fn with_memory(mut self, mib: u64, huge: bool) -> Self {
        (self.memory_mib, self.huge_pages) = if huge {
            (0, mib.div_ceil(HUGE_PAGE_MIB))
        } else {
            (mib, 0)
        };
        self
    }

    /// Guest RAM of either kind, in MiB.
    pub fn all_memory_mib(&self) -> u64 {
        let huge_mib = self.huge_pages.saturating_mul(HUGE_PAGE_MIB);
        self.memory_mib.saturating_add(huge_mib)
    }

    pub(super) fn starting_now(&self) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            since_unix_ms: millis(since_epoch.unwrap_or_default()),
            ..self.clone()
        }
    }
}

/// A file that this process holds. Dropping it removes it.
#[derive(Debug)]
pub(super) struct TicketFile {
    file: File,
    path: PathBuf,
}

impl TicketFile {
    /// Makes the file at `path`. The caller holds the queue's lock, so the name is free.
    pub(super) fn make(path: PathBuf, claim: &Claim) -> Result<Self, QueueError> {
        let failed = |source| QueueError::unusable(&path, source);
        let file = File::options()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(failed)?;
        let mut ticket = Self { file, path };
        let written = ticket.file.lock().and_then(|()| {
            let json = serde_json::to_vec(&claim.starting_now())?;
            ticket.file.write_all(&json)
        });
        match written {
            Ok(()) => Ok(ticket),
            Err(source) => Err(QueueError::unusable(&ticket.path, source)),
        }
    }
}

impl Drop for TicketFile {
    fn drop(&mut self) {
        // A file that stays counts for nothing once it is closed.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether its owner still has it. Readers lock shared, so that they don't take each other for owners.
pub(super) fn is_held(file: &File) -> bool {
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => true,
        Ok(()) | Err(TryLockError::Error(_)) => false,
    }
}

/// The file at `path` and what it says, if its owner has it. Else it is removed: the caller holds the
/// queue's lock, so nobody is about to lock the file.
pub(super) fn open_held(path: &Path) -> Result<Option<(File, Claim)>, QueueError> {
    let read = || -> io::Result<Option<(File, Claim)>> {
        let file = match File::open(path) {
            // Its owner has just left.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        if !is_held(&file) {
            // If it stays, it goes on to mean nothing.
            let _ = fs::remove_file(path);
            return Ok(None);
        }
        let mut json = Vec::new();
        (&file).take(MAX_BYTES).read_to_end(&mut json)?;
        // What another version wrote in another form still holds something.
        let claim = serde_json::from_slice(&json).unwrap_or_else(|_| Claim::new("unknown", "", 1));
        Ok(Some((file, claim)))
    };
    read().map_err(|source| QueueError::unusable(path, source))
}
