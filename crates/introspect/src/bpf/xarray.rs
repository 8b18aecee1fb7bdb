//! Tables from ids to objects (`struct idr` over `struct xarray`, `include/linux/xarray.h`).

use crate::btf::Field;
use crate::kernel::{Kernel, ReadError, stable};

/// More objects than are believed.
const MAX_ENTRIES: usize = 1 << 16;
/// Nodes that are visited to find them.
const MAX_NODES: usize = 1 << 16;
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

    /// The addresses of the objects in it, in order of their ids.
    pub(super) fn objects(&self) -> Result<Vec<u64>, ReadError> {
        stable(|| self.walk())
    }

    fn walk(&self) -> Result<Vec<u64>, ReadError> {
        let memory = self.kernel.memory();
        let what = "a table of ids";
        let mut found = Vec::new();
        let mut nodes = 0;
        // Entries to look at, the next one last, each with the shift that a node there must be below.
        let mut pending = vec![(memory.u64(self.head)?, u8::MAX)];
        while let Some((entry, above)) = pending.pop() {
            if entry & TAG_MASK == 0 {
                if found.len() == MAX_ENTRIES {
                    return Err(ReadError::TooMany {
                        what,
                        limit: MAX_ENTRIES,
                    });
                }
                found.extend((entry != 0).then_some(entry));
                continue;
            }
            if entry & TAG_MASK != INTERNAL || entry <= LAST_MARK {
                continue;
            }
            let node = entry - INTERNAL;
            let [shift] = memory.array(node.wrapping_add(self.shift.offset))?;
            nodes += 1;
            if shift >= above || nodes > MAX_NODES {
                return Err(ReadError::Unstable { what });
            }
            let slots = memory.bytes(node.wrapping_add(self.slots.offset), self.slots.size)?;
            let (slots, _) = slots.as_chunks::<8>();
            let slots = slots.iter().rev().map(|&slot| u64::from_le_bytes(slot));
            pending.extend(slots.filter(|&slot| slot != 0).map(|slot| (slot, shift)));
        }
        Ok(found)
    }
}
