//! Some members of a structure, read together.

use super::{BudgetedMemory, ReadError};
use crate::btf::{Field, LayoutError, Struct};
use crate::memory::KernelMemory;

/// Members that are nearer to each other than this are read at once.
const GAP_BYTES: u64 = 128;

/// The members of a structure that are of interest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    /// Ascending, without overlap.
    spans: Vec<(u64, u64)>,
}

/// Collects the members of one structure.
pub(crate) struct RecordBuilder<'a> {
    of: Struct<'a>,
    fields: Vec<Field>,
}

impl<'a> RecordBuilder<'a> {
    pub(crate) fn new(of: Struct<'a>) -> Self {
        Self {
            of,
            fields: Vec::new(),
        }
    }

    /// A member that every kernel has.
    pub(crate) fn need(&mut self, path: &'static str) -> Result<Field, LayoutError> {
        let field = self.of.field(path)?;
        self.fields.push(field);
        Ok(field)
    }

    /// The first `len_bytes` of a member that every kernel has, which may be longer.
    pub(crate) fn need_first(
        &mut self,
        path: &'static str,
        len_bytes: u64,
    ) -> Result<Field, LayoutError> {
        let mut field = self.of.field(path)?;
        field.size = field.size.min(len_bytes);
        self.fields.push(field);
        Ok(field)
    }

    /// A member that some kernels have.
    pub(crate) fn want(&mut self, path: &'static str) -> Result<Option<Field>, LayoutError> {
        let field = self.of.optional(path)?;
        self.fields.extend(field);
        Ok(field)
    }

    /// A member that has had several names, the newest first.
    pub(crate) fn want_one_of(
        &mut self,
        paths: &[&'static str],
    ) -> Result<Option<Field>, LayoutError> {
        for path in paths {
            if let Some(field) = self.want(path)? {
                return Ok(Some(field));
            }
        }
        Ok(None)
    }

    /// The members whose names `wanted` wants, in the structure's order.
    pub(crate) fn members_that(&mut self, wanted: impl Fn(&str) -> bool) -> Vec<(String, Field)> {
        let found: Vec<_> = self
            .of
            .direct_fields()
            .filter(|(name, _)| wanted(name))
            .collect();
        self.fields.extend(found.iter().map(|(_, field)| *field));
        found
            .into_iter()
            .map(|(name, field)| (name.to_owned(), field))
            .collect()
    }

    pub(crate) fn finish(mut self) -> Record {
        self.fields.sort_by_key(|field| field.offset);
        let mut spans: Vec<(u64, u64)> = Vec::new();
        for field in self.fields {
            match spans.last_mut() {
                Some((_, end)) if field.offset <= end.saturating_add(GAP_BYTES) => {
                    *end = field.end().max(*end);
                }
                _ => spans.push((field.offset, field.end())),
            }
        }
        Record { spans }
    }
}

impl Record {
    /// Reads the members of the structure at `address` into `bytes`, at their offsets.
    pub(crate) fn read(
        &self,
        memory: &KernelMemory,
        address: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        self.read_by(address, bytes, |at, part| Ok(memory.read(at, part)?))
    }

    /// As [`Self::read`], within a budget.
    pub(crate) fn read_within(
        &self,
        memory: BudgetedMemory<'_>,
        address: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        self.read_by(address, bytes, |at, part| memory.read(at, part))
    }

    fn read_by(
        &self,
        address: u64,
        bytes: &mut Vec<u8>,
        read: impl Fn(u64, &mut [u8]) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let end = self.spans.last().map_or(0, |&(_, end)| end);
        bytes.resize(usize::try_from(end).unwrap_or(0), 0);
        for &(start, end) in &self.spans {
            let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
            if let Some(part) = range.and_then(|(start, end)| bytes.get_mut(start..end)) {
                read(address.wrapping_add(start), part)?;
            }
        }
        Ok(())
    }
}

/// The value of `field` in what a [`Record`] read that has it.
pub(crate) fn value(field: Field, bytes: &[u8]) -> u64 {
    field.uint(bytes).unwrap_or(0)
}

/// As [`value`], of a signed 32-bit member.
pub(crate) fn value_i32(field: Field, bytes: &[u8]) -> i32 {
    field
        .int(bytes)
        .and_then(|value| i32::try_from(value).ok())
        .unwrap_or(0)
}

/// As [`value`], of an unsigned 32-bit member. Of a wider one that holds more, the most.
pub(crate) fn value_u32(field: Field, bytes: &[u8]) -> u32 {
    u32::try_from(value(field, bytes)).unwrap_or(u32::MAX)
}
