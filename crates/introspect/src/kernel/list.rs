//! Doubly linked lists (`struct list_head`).

use super::BudgetedMemory;
use super::ReadError;

/// The addresses of the list heads on the list at `head`, which itself is not among them.
///
/// Each must point back to the one before it; a list that is changed while it is read is
/// [`ReadError::Unstable`].
pub(super) fn walk(
    memory: BudgetedMemory<'_>,
    head: u64,
    what: &'static str,
) -> Result<Vec<u64>, ReadError> {
    let mut nodes = Vec::new();
    let mut last = head;
    let mut at = memory.u64(head)?;
    loop {
        // `next` and `prev`, in this order in every kernel.
        memory.budget().charge_nodes(1)?;
        let [next, prev] = match pair(memory, at) {
            Err(ReadError::Memory(_)) => return Err(ReadError::Unstable { what }),
            read => read?,
        };
        if prev != last {
            return Err(ReadError::Unstable { what });
        }
        if at == head {
            return Ok(nodes);
        }
        nodes.push(at);
        last = at;
        at = next;
    }
}

fn pair(memory: BudgetedMemory<'_>, address: u64) -> Result<[u64; 2], ReadError> {
    let bytes: [u8; 16] = memory.array(address)?;
    let (words, _) = bytes.as_chunks::<8>();
    Ok([u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])])
}
