//! The type information of BPF objects (`struct btf`, `kernel/bpf/btf.c`).

use std::cell::RefCell;
use std::collections::HashMap;

use crate::btf::{Btf, BtfError, Field};
use crate::budget::Budget;
use crate::kernel::{Kernel, ReadError};

/// More type information than any program has (`BTF_MAX_SIZE`).
const MAX_BTF_BYTES: u32 = 16 << 20;

/// Reads the type information of BPF objects.
#[derive(Clone, Debug)]
pub struct ObjectBtf {
    kernel: Kernel,
    data: Field,
    data_size: Field,
    base: Option<Field>,
}

/// Type information that was read in one look. Most maps of an object have the same: it is read once.
#[derive(Debug, Default)]
pub struct ObjectBtfCache {
    /// By the address of the `struct btf`.
    read: RefCell<HashMap<u64, Result<Btf, ReadError>>>,
}

impl ObjectBtf {
    /// Looks up where everything is.
    pub fn new(kernel: &Kernel) -> Result<Self, ReadError> {
        let btf = kernel.image().btf.structure("btf")?;
        Ok(Self {
            data: btf.field("data")?,
            data_size: btf.field("data_size")?,
            base: btf.optional("base_btf")?,
            kernel: kernel.clone(),
        })
    }

    /// The type information of the `struct btf` at `address`, as [`Map::btf`](super::Map::btf) has it, from
    /// `cache` if it was read before. It does not change while its map or program lives.
    pub fn read(
        &self,
        address: u64,
        cache: &ObjectBtfCache,
        budget: &Budget,
    ) -> Result<Btf, ReadError> {
        if let Some(read) = cache.read.borrow().get(&address) {
            return read.clone();
        }
        let read = self.read_again(address, budget);
        cache.read.borrow_mut().insert(address, read.clone());
        read
    }

    fn read_again(&self, address: u64, budget: &Budget) -> Result<Btf, ReadError> {
        let memory = self.kernel.memory().within(budget);
        let data = memory.u64(address.wrapping_add(self.data.offset))?;
        let size = memory.u32(address.wrapping_add(self.data_size.offset))?;
        if size > MAX_BTF_BYTES {
            return Err(ReadError::Unstable {
                what: "the type information of a BPF object",
            });
        }
        let bytes = memory.bytes(data, size.into())?;
        let base = match self.base {
            Some(base) => memory.u64(address.wrapping_add(base.offset))?,
            None => 0,
        };
        // What a BPF object or a module continues can only be the kernel's own.
        let base = (base != 0).then(|| self.kernel.image().btf.clone());
        Btf::parse_within(&bytes, base, budget).map_err(|error| match error {
            BtfError::Budget(exhausted) => exhausted.into(),
            error => error.into(),
        })
    }
}
