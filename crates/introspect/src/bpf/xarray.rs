//! Tables from ids to objects (`struct idr` over `struct xarray`, `include/linux/xarray.h`).

use std::collections::HashSet;

use crate::btf::Field;
use crate::budget::Budget;
use crate::kernel::BudgetedMemory;
use crate::kernel::{Kernel, ReadError, stable};

/// The low bits of an entry: 0 is a pointer, 2 something of the table's own, others are numbers.
const TAG_MASK: u64 = 3;
const INTERNAL: u64 = 2;
/// Internal entries up to here are marks, above they are nodes.
const LAST_MARK: u64 = 4096;

/// Reads tables from ids to objects.
#[derive(Clone, Debug)]
pub(super) struct IdTable {
    kernel: Kernel,
    /// Where the first entry is.
    head: u64,
    shift: Field,
    slots: Field,
}

impl IdTable {
    /// The table that is the variable `name`.
    pub(super) fn new(kernel: &Kernel, name: &'static str) -> Result<Self, ReadError> {
        let btf = &kernel.image().btf;
        let node = btf.structure("xa_node")?;
        let head = btf.structure("idr")?.offset("idr_rt.xa_head")?;
        Ok(Self {
            head: kernel.symbol(name)?.wrapping_add(head),
            shift: node.field("shift")?,
            slots: node.field("slots")?,
            kernel: kernel.clone(),
        })
    }

    /// The addresses of the objects in it, in order of their ids. One that has several ids is there once.
    pub(super) fn objects(&self, budget: &Budget) -> Result<Vec<u64>, ReadError> {
        let memory = self.kernel.memory().within(budget);
        stable(|| self.walk(memory))
    }

    fn walk(&self, memory: BudgetedMemory<'_>) -> Result<Vec<u64>, ReadError> {
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        // Entries to look at, the next one last, each with the shift that a node there must be below.
        let mut pending = vec![(memory.u64(self.head)?, u8::MAX)];
        while let Some((entry, above)) = pending.pop() {
            memory.budget().charge_nodes(1)?;
            if entry & TAG_MASK == 0 {
                if entry != 0 && seen.insert(entry) {
                    found.push(entry);
                }
                continue;
            }
            if entry & TAG_MASK != INTERNAL || entry <= LAST_MARK {
                continue;
            }
            let node = entry - INTERNAL;
            let [shift] = memory.array(node.wrapping_add(self.shift.offset))?;
            if shift >= above {
                return Err(ReadError::Unstable {
                    what: "a table of ids",
                });
            }
            let slots = memory.bytes(node.wrapping_add(self.slots.offset), self.slots.size)?;
            let (slots, _) = slots.as_chunks::<8>();
            let slots = slots.iter().rev().map(|&slot| u64::from_le_bytes(slot));
            pending.extend(slots.filter(|&slot| slot != 0).map(|slot| (slot, shift)));
        }
        Ok(found)
    }
}
