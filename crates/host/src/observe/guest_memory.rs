//! Guest RAM as introspection reads and writes it.

use ktstr_introspect::memory::{PhysError, PhysRead, PhysWrite};
use ktstr_machine::GuestMemory;

/// Guest RAM of a machine.
#[derive(Clone, Debug)]
pub(super) struct GuestRam(pub(super) GuestMemory);

impl PhysRead for GuestRam {
    fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), PhysError> {
        let read = self.0.read(gpa, into);
        read.map_err(|error| PhysError { gpa: error.gpa })
    }

    fn end(&self) -> u64 {
        self.0.ranges().map(|range| range.end).max().unwrap_or(0)
    }
}

impl PhysWrite for GuestRam {
    fn write(&self, gpa: u64, bytes: &[u8]) -> Result<(), PhysError> {
        let stored = self.0.store(gpa, bytes);
        stored.map_err(|error| PhysError { gpa: error.gpa })
    }
}
