//! Doubly linked lists (`struct list_head`).

use super::ReadError;
use crate::memory::KernelMemory;

/// The addresses of the list heads on the list at `head`, which itself is not among them.
///
/// Each must point back to the one before it; a list that is changed while it is read is
/// [`ReadError::Unstable`].
pub(super) fn walk(
    memory: &KernelMemory,
    head: u64,
    limit: usize,
    what: &'static str,
) -> Result<Vec<u64>, ReadError> {
    let mut nodes = Vec::new();
    let mut last = head;
    let mut at = memory.u64(head)?;
    loop {
        // `next` and `prev`, in this order in every kernel.
        let [next, prev] = pair(memory, at).map_err(|_| ReadError::Unstable { what })?;
        if prev != last {
            return Err(ReadError::Unstable { what });
        }
        if at == head {
            return Ok(nodes);
        }
        if nodes.len() == limit {
            return Err(ReadError::TooMany { what, limit });
        }
        nodes.push(at);
        last = at;
        at = next;
    }
}

fn pair(memory: &KernelMemory, address: u64) -> Result<[u64; 2], ReadError> {
    let bytes: [u8; 16] = memory.array(address)?;
    let (words, _) = bytes.as_chunks::<8>();
    Ok([u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])])
}
