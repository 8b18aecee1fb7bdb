//! Guest-physical memory, as whoever runs the guest gives it.

/// An address that the guest has no memory at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("guest-physical {gpa:#x} is not memory of the guest")]
pub struct PhysError {
    /// An address of the access that can't be read or written.
    pub gpa: u64,
}

/// Reads guest-physical memory.
pub trait PhysRead {
    /// Fills `into` from guest-physical address `gpa` on. On an error, `into` may be partly filled. Each
    /// naturally aligned 64-bit word must be read at once; the rest may be torn.
    fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), PhysError>;

    /// The end of memory: there is none from this guest-physical address on.
    fn end(&self) -> u64;
}

/// Writes guest-physical memory.
pub trait PhysWrite {
    /// Writes all of `bytes` from guest-physical address `gpa` on. A number of up to 8 bytes at its natural
    /// alignment must be written at once.
    fn write(&self, gpa: u64, bytes: &[u8]) -> Result<(), PhysError>;
}

/// Bytes as physical memory from address 0 on, as in a dump.
#[derive(Clone, Debug)]
pub struct Dump(pub Vec<u8>);

impl PhysRead for Dump {
    fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), PhysError> {
        let bytes = usize::try_from(gpa)
            .ok()
            .and_then(|start| self.0.get(start..start.checked_add(into.len())?))
            .ok_or(PhysError {
                gpa: gpa.max(self.end()),
            })?;
        into.copy_from_slice(bytes);
        Ok(())
    }

    fn end(&self) -> u64 {
        self.0.len() as u64
    }
}
