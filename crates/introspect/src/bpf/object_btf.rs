//! The type information of BPF objects (`struct btf`, `kernel/bpf/btf.c`).

use crate::btf::{Btf, Field};
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

    /// The type information of the `struct btf` at `address`, as [`Map::btf`](super::Map::btf) has it. It
    /// does not change while its map or program lives.
    pub fn read(&self, address: u64) -> Result<Btf, ReadError> {
        let memory = self.kernel.memory();
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
        Ok(if base == 0 {
            Btf::parse(&bytes)?
        } else {
            Btf::parse_split(&bytes, &self.kernel.image().btf)?
        })
    }
}
