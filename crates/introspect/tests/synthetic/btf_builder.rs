//! Writes BTF, and reads all of it.

use ktstr_introspect::btf::{Btf, Struct, TypeId};

/// The parts of a BTF object, in the making.
pub(crate) struct BtfBuilder {
    types: Vec<u8>,
    strings: Vec<u8>,
    next_id: u32,
    first_string: u32,
}

pub(crate) const INT_SIGNED: u32 = 1 << 24;
pub(crate) const INT_BOOL: u32 = 4 << 24;

impl BtfBuilder {
    pub(crate) fn new() -> Self {
        Self::after(1, 0)
    }

    /// Of an object that continues one with these many ids and bytes of names.
    pub(crate) fn after(next_id: u32, first_string: u32) -> Self {
        // Only a base begins with the empty name.
        let strings = if first_string == 0 { vec![0] } else { vec![] };
        Self {
            types: Vec::new(),
            strings,
            next_id,
            first_string,
        }
    }

    pub(crate) fn next_id(&self) -> u32 {
        self.next_id
    }

    pub(crate) fn strings_len(&self) -> u32 {
        u32::try_from(self.strings.len()).unwrap()
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = self.first_string + self.strings_len();
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        at
    }

    /// A type of any kind: its number, `vlen` with the flag in the highest bit, size or type, and the words
    /// that follow.
    pub(crate) fn raw(&mut self, name: &str, kind: u32, vlen: u32, word: u32, tail: &[u32]) -> u32 {
        let name = self.name(name);
        let info = (kind << 24) | (vlen & 0x8000_ffff);
        for word in [name, info, word].iter().chain(tail) {
            self.types.extend(word.to_le_bytes());
        }
        self.next_id += 1;
        self.next_id - 1
    }

    pub(crate) fn int(&mut self, name: &str, bytes: u32, encoding: u32) -> u32 {
        self.raw(name, 1, 0, bytes, &[encoding | (bytes * 8)])
    }

    pub(crate) fn pointer(&mut self, to: u32) -> u32 {
        self.raw("", 2, 0, to, &[])
    }

    pub(crate) fn array(&mut self, of: u32, len: u32) -> u32 {
        self.raw("", 3, 0, 0, &[of, 1, len])
    }

    /// Members with their offsets in bytes.
    pub(crate) fn structure(
        &mut self,
        name: &str,
        bytes: u32,
        members: &[(&str, u32, u32)],
    ) -> u32 {
        self.composite(name, 4, bytes, members)
    }

    pub(crate) fn union(&mut self, name: &str, bytes: u32, members: &[(&str, u32)]) -> u32 {
        let members: Vec<_> = members.iter().map(|&(name, id)| (name, id, 0)).collect();
        self.composite(name, 5, bytes, &members)
    }

    fn composite(
        &mut self,
        name: &str,
        kind: u32,
        bytes: u32,
        members: &[(&str, u32, u32)],
    ) -> u32 {
        let tail: Vec<u32> = members
            .iter()
            .flat_map(|&(name, id, at)| [self.name(name), id, at * 8])
            .collect();
        let vlen = u32::try_from(members.len()).unwrap();
        self.raw(name, kind, vlen, bytes, &tail)
    }

    /// Members with their offsets in bits and their widths.
    pub(crate) fn bit_structure(
        &mut self,
        name: &str,
        bytes: u32,
        members: &[(&str, u32, u32, u32)],
    ) -> u32 {
        let tail: Vec<u32> = members
            .iter()
            .flat_map(|&(name, id, at, width)| [self.name(name), id, (width << 24) | at])
            .collect();
        let vlen = u32::try_from(members.len()).unwrap();
        self.raw(name, 4, vlen | (1 << 31), bytes, &tail)
    }

    pub(crate) fn enumeration(&mut self, name: &str, values: &[(&str, i32)]) -> u32 {
        let tail: Vec<u32> = values
            .iter()
            .flat_map(|&(name, value)| [self.name(name), value.cast_unsigned()])
            .collect();
        let vlen = u32::try_from(values.len()).unwrap();
        self.raw(name, 6, vlen | (1 << 31), 4, &tail)
    }

    pub(crate) fn typedef(&mut self, name: &str, of: u32) -> u32 {
        self.raw(name, 8, 0, of, &[])
    }

    pub(crate) fn constant(&mut self, of: u32) -> u32 {
        self.raw("", 10, 0, of, &[])
    }

    /// Variables with type, offset and size.
    pub(crate) fn section(&mut self, name: &str, vars: &[(&str, u32, u32, u32)]) -> u32 {
        let tail: Vec<u32> = vars
            .iter()
            .flat_map(|&(name, id, at, size)| [self.raw(name, 14, 0, id, &[1]), at, size])
            .collect();
        let size = vars.iter().map(|var| var.2 + var.3).max().unwrap_or(0);
        self.raw(name, 15, u32::try_from(vars.len()).unwrap(), size, &tail)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let types = u32::try_from(self.types.len()).unwrap();
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        for word in [24, 0, types, types, self.strings_len()] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(&self.types);
        bytes.extend(&self.strings);
        bytes
    }
}

/// Asks everything of every type.
pub(crate) fn read_all(btf: &Btf) -> usize {
    let mut seen = 0;
    for id in 0..btf.end_id() {
        let found = btf.get(TypeId(id)).unwrap();
        seen += found.name().len() + found.members().count() + found.enumerators().count();
        seen += found.section_vars().count() + btf.named(found.name()).take(10).count();
        let _ = (
            found.size(),
            found.int(),
            found.stripped().map(|one| one.id()),
        );
        if let Ok(Some(layout)) = Struct::from_id(btf, found.id()) {
            for path in ["scx.slice", "low", "next.x", ""] {
                if let Ok(Some(field)) = layout.optional(path) {
                    let _ = (field.uint(&[1; 64]), field.int(&[1; 64]), field.end());
                }
            }
        }
    }
    seen
}
