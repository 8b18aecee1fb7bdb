//! Reading within a budget.

use super::ReadError;
use crate::budget::Budget;
use crate::memory::{KernelMemory, MemoryError};

/// A kernel's memory, of which each read is charged to a budget.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BudgetedMemory<'a> {
    memory: &'a KernelMemory,
    budget: &'a Budget,
}

impl KernelMemory {
    /// The same memory, within `budget`.
    pub(crate) fn within<'a>(&'a self, budget: &'a Budget) -> BudgetedMemory<'a> {
        BudgetedMemory {
            memory: self,
            budget,
        }
    }
}

impl<'a> BudgetedMemory<'a> {
    pub(crate) fn budget(&self) -> &'a Budget {
        self.budget
    }

    /// The end of guest-physical memory.
    pub(crate) fn phys_end(&self) -> u64 {
        self.memory.phys_end()
    }

    /// As [`KernelMemory::read`].
    pub(crate) fn read(&self, address: u64, into: &mut [u8]) -> Result<(), ReadError> {
        self.budget.charge_bytes(into.len() as u64)?;
        Ok(self.memory.read(address, into)?)
    }

    /// As [`KernelMemory::bytes`]. What is too long is refused before it is charged.
    pub(crate) fn bytes(&self, address: u64, len: u64) -> Result<Vec<u8>, ReadError> {
        if len > self.memory.phys_end() {
            return Err(MemoryError::TooLong { address, len }.into());
        }
        self.budget.charge_bytes(len)?;
        Ok(self.memory.bytes(address, len)?)
    }

    /// As [`KernelMemory::array`].
    pub(crate) fn array<const N: usize>(&self, address: u64) -> Result<[u8; N], ReadError> {
        let mut bytes = [0; N];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// As [`KernelMemory::u64`].
    pub(crate) fn u64(&self, address: u64) -> Result<u64, ReadError> {
        self.array(address).map(u64::from_le_bytes)
    }

    /// As [`KernelMemory::u32`].
    pub(crate) fn u32(&self, address: u64) -> Result<u32, ReadError> {
        self.array(address).map(u32::from_le_bytes)
    }
}
