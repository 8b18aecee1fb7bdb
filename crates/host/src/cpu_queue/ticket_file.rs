//! The files of the queue: each says who its owner is, and is locked as long as that process lives.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::claim::Claim;
use super::waiting::QueueError;

/// Longest file that is read.
const MAX_BYTES: u64 = 64 << 10;

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
