//! Bytes as values, by their type.

use std::collections::HashMap;
use std::fmt;

use crate::btf::{Btf, Field, Kind, Struct, Type, TypeError, TypeId};
use crate::budget::Budget;

/// Deepest nesting, and most values, that are rendered. What is beyond is [`Value::Cut`].
const MAX_DEPTH: usize = 32;
const MAX_VALUES: usize = 100_000;
/// Most bytes of names and text in a value. Members may overlap, as those of a union do, so that what is rendered is
/// not bounded by the length of what is read.
const MAX_TEXT_BYTES: usize = 4 << 20;
/// The name of the last member of a structure of which not all were rendered; its value is [`Value::Cut`].
const REST: &str = "…";

/// A value of a C type.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An unsigned integer.
    Uint(u64),
    /// A signed integer.
    Int(i64),
    /// A `bool`.
    Bool(bool),
    /// A floating point number.
    Float(f64),
    /// A value of an enumeration, with its name if it has one.
    Enum { value: i64, name: Option<String> },
    /// An array of characters that holds text.
    Text(String),
    /// A pointer. What it points to is not read.
    Pointer(u64),
    /// Members by name, in their order; those of anonymous structures among them. Of a union all.
    Struct(Vec<(String, Value)>),
    /// Elements in order.
    Array(Vec<Value>),
    /// Bytes of no known type, or of one that has no better rendering.
    Bytes(Vec<u8>),
    /// Not rendered: there is more than is worth it.
    Cut,
}

impl Value {
    /// Renders `bytes` as a value of type `id`. Bytes that are missing are [`Value::Cut`], and so is what is
    /// beyond 100,000 values, 4 MiB of text or `budget`: as an element of an array, or as a member `…` of a
    /// structure, for all that follow.
    pub fn render(btf: &Btf, id: TypeId, bytes: &[u8], budget: &Budget) -> Result<Self, TypeError> {
        let mut renderer = Renderer {
            btf,
            budget,
            left: MAX_VALUES,
            left_text_bytes: MAX_TEXT_BYTES,
            enumerators: HashMap::new(),
        };
        if !renderer.has_value() {
            return Ok(Self::Cut);
        }
        renderer.render(btf.get(id)?, bytes, MAX_DEPTH)
    }

    /// Bytes of memory that it takes here, about.
    pub fn memory_bytes(&self) -> u64 {
        let inner: u64 = match self {
            Self::Struct(members) => members
                .iter()
                .map(|(name, value)| {
                    size_of::<String>() as u64 + name.len() as u64 + value.memory_bytes()
                })
                .sum(),
            Self::Array(elements) => elements.iter().map(Self::memory_bytes).sum(),
            Self::Text(text) => text.len() as u64,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Enum { name, .. } => name.as_ref().map_or(0, |name| name.len() as u64),
            _ => 0,
        };
        inner.saturating_add(size_of::<Self>() as u64)
    }

    /// The member or element at `path`: `stats.per_cpu[3]`.
    pub fn get(&self, path: &str) -> Option<&Self> {
        let steps = path.split(['.', '[']).filter(|step| !step.is_empty());
        let mut at = self;
        for step in steps {
            at = match (at, step.strip_suffix(']')) {
                (Self::Struct(members), None) => &members.iter().find(|(name, _)| name == step)?.1,
                (Self::Array(elements), Some(index)) => {
                    elements.get(index.parse::<usize>().ok()?)?
                }
                _ => return None,
            };
        }
        Some(at)
    }

    /// It as an integer, if it is one.
    pub fn as_integer(&self) -> Option<i128> {
        match self {
            Self::Uint(value) | Self::Pointer(value) => Some((*value).into()),
            Self::Int(value) | Self::Enum { value, .. } => Some((*value).into()),
            Self::Bool(value) => Some((*value).into()),
            _ => None,
        }
    }
}

/// Whoever calls [`Renderer::render`] has asked [`Renderer::has_value`] before, so that each value is counted,
/// those too of which nothing is left.
struct Renderer<'a> {
    btf: &'a Btf,
    budget: &'a Budget,
    left: usize,
    left_text_bytes: usize,
    /// Names of values of the enumerations that were met: an array of thousands looks them up each time.
    enumerators: HashMap<TypeId, HashMap<i64, &'a str>>,
}

impl<'a> Renderer<'a> {
    fn render(&mut self, of: Type<'a>, bytes: &[u8], depth: usize) -> Result<Value, TypeError> {
        let of = of.stripped()?;
        let Some(depth) = depth.checked_sub(1) else {
            return Ok(Value::Cut);
        };
        match of.kind() {
            Kind::Struct | Kind::Union => {
                let mut members = Vec::new();
                self.members(of, 0, bytes, depth, &mut members)?;
                Ok(Value::Struct(members))
            }
            Kind::Array => self.array(of, bytes, depth),
            Kind::Datasec => {
                let mut members = Vec::new();
                // Variables that the types don't know take time too.
                if !self.has_nodes(of.vlen()) {
                    return Ok(Value::Cut);
                }
                for var in of.section_vars() {
                    if !self.has_value() || !self.has_text(var.name.len()) {
                        members.push((REST.to_owned(), Value::Cut));
                        break;
                    }
                    let value = self.part(var.type_id, bytes, var.offset.into(), depth)?;
                    members.push((var.name.to_owned(), value));
                }
                Ok(Value::Struct(members))
            }
            _ => {
                let size = of.size().unwrap_or(bytes.len() as u64);
                let own = usize::try_from(size)
                    .ok()
                    .and_then(|size| bytes.get(..size));
                Ok(own.map_or(Value::Cut, |own| self.scalar(of, own)))
            }
        }
    }

    /// Whether one more value is worth it; if so, it is counted.
    fn has_value(&mut self) -> bool {
        let left = self.left.checked_sub(1).filter(|_| self.has_nodes(1));
        self.left = left.unwrap_or(0);
        left.is_some()
    }

    /// Whether the look may visit so many more.
    fn has_nodes(&self, nodes: usize) -> bool {
        self.budget.charge_nodes(nodes as u64).is_ok()
    }

    /// Whether so many bytes of names and text more are worth it; if so, they are counted.
    fn has_text(&mut self, bytes: usize) -> bool {
        let left = self.left_text_bytes.checked_sub(bytes);
        let left = left.filter(|_| self.budget.charge_bytes(bytes as u64).is_ok());
        self.left_text_bytes = left.unwrap_or(self.left_text_bytes);
        left.is_some()
    }

    /// The value of type `id` at `offset` in `bytes`.
    fn part(
        &mut self,
        id: TypeId,
        bytes: &[u8],
        offset: u64,
        depth: usize,
    ) -> Result<Value, TypeError> {
        let of = self.btf.get(id)?;
        let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..));
        rest.map_or(Ok(Value::Cut), |rest| self.render(of, rest, depth))
    }

    fn members(
        &mut self,
        of: Type<'a>,
        bit_base: u64,
        bytes: &[u8],
        depth: usize,
        into: &mut Vec<(String, Value)>,
    ) -> Result<(), TypeError> {
        let rest = || (REST.to_owned(), Value::Cut);
        let Some(depth) = depth.checked_sub(1) else {
            into.push(rest());
            return Ok(());
        };
        for member in of.members() {
            // An anonymous structure is counted too, as it may have no members and be one of very many.
            if !self.has_value() {
                // Those of an outer structure that follow are told of by the same mark.
                if into.last().is_none_or(|(name, _)| name != REST) {
                    into.push(rest());
                }
                return Ok(());
            }
            let bit_offset = bit_base + u64::from(member.bit_offset);
            let inner = self.btf.get(member.type_id)?.stripped()?;
            let is_composite = matches!(inner.kind(), Kind::Struct | Kind::Union);
            if member.name.is_empty() && is_composite {
                self.members(inner, bit_offset, bytes, depth, into)?;
                continue;
            }
            if !self.has_text(member.name.len()) {
                into.push(rest());
                return Ok(());
            }
            let value = if member.bitfield_bits.is_some() {
                let field = Field::new(self.btf, bit_offset, &member)?;
                self.bit_field(inner, field, bytes)
            } else {
                self.part(member.type_id, bytes, bit_offset / 8, depth)?
            };
            into.push((member.name.to_owned(), value));
        }
        Ok(())
    }

    fn array(&mut self, of: Type<'a>, bytes: &[u8], depth: usize) -> Result<Value, TypeError> {
        let element = self.btf.get(of.target().unwrap_or(TypeId(0)))?.stripped()?;
        let count = of.array_len().unwrap_or(0) as usize;
        let size = usize::try_from(element.size()?).unwrap_or(usize::MAX);
        if size == 0 {
            return Ok(Value::Array(Vec::new()));
        }
        let whole = count.checked_mul(size).and_then(|len| bytes.get(..len));
        let Some(whole) = whole else {
            return Ok(Value::Cut);
        };
        if element.kind() == Kind::Int && element.name() == "char" {
            if !self.has_text(whole.len()) {
                return Ok(Value::Cut);
            }
            if let Some(text) = text(whole) {
                return Ok(Value::Text(text));
            }
        }
        let mut elements = Vec::new();
        for part in whole.chunks_exact(size) {
            if !self.has_value() {
                elements.push(Value::Cut);
                break;
            }
            elements.push(self.render(element, part, depth)?);
        }
        Ok(Value::Array(elements))
    }

    /// The value of a type without parts.
    fn scalar(&mut self, of: Type<'a>, bytes: &[u8]) -> Value {
        let value = crate::bytes::uint(bytes);
        let width = u32::try_from(bytes.len() * 8).unwrap_or(u64::BITS);
        match (of.kind(), value) {
            (Kind::Ptr, Some(value)) => return Value::Pointer(value),
            (Kind::Int | Kind::Enum | Kind::Enum64, Some(value)) => {
                return self.integer(of, value, width);
            }
            (Kind::Float, Some(value)) => match (bytes.len(), u32::try_from(value)) {
                (4, Ok(bits)) => return Value::Float(f32::from_bits(bits).into()),
                (8, _) => return Value::Float(f64::from_bits(value)),
                _ => {}
            },
            _ => {}
        }
        if self.has_text(bytes.len()) {
            Value::Bytes(bytes.to_vec())
        } else {
            Value::Cut
        }
    }

    fn bit_field(&mut self, of: Type<'a>, field: Field, bytes: &[u8]) -> Value {
        let width = field.bits.map_or(64, |bits| u32::from(bits.width));
        let value = field.uint(bytes);
        value.map_or(Value::Cut, |value| self.integer(of, value, width))
    }

    /// `value` of `width` bits as a number of the type `of`.
    fn integer(&mut self, of: Type<'a>, value: u64, width: u32) -> Value {
        let unused = u64::BITS - width.clamp(1, u64::BITS);
        let signed = (value << unused).cast_signed() >> unused;
        if let Some(encoding) = of.int() {
            return match encoding {
                // Show any other value as it is.
                encoding if encoding.boolean && value <= 1 => Value::Bool(value == 1),
                encoding if encoding.signed => Value::Int(signed),
                _ => Value::Uint(value),
            };
        }
        let value = if of.is_signed_enum() {
            signed
        } else {
            value.cast_signed()
        };
        if !self.enumerators.contains_key(&of.id()) && !self.has_nodes(of.vlen()) {
            return Value::Enum { value, name: None };
        }
        let names = self.enumerators.entry(of.id()).or_insert_with(|| {
            let mut names = HashMap::new();
            for one in of.enumerators().filter(|one| !one.name.is_empty()) {
                names.entry(one.value).or_insert(one.name);
            }
            names
        });
        let name = names.get(&value).copied();
        Value::Enum {
            value,
            name: name
                .filter(|name| self.has_text(name.len()))
                .map(str::to_owned),
        }
    }
}

/// Text in an array of characters: printable up to the first NUL.
fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|&byte| byte == 0);
    let text = std::str::from_utf8(&bytes[..end.unwrap_or(bytes.len())]).ok()?;
    let is_text = text
        .chars()
        .all(|one| !one.is_control() || one == '\n' || one == '\t');
    is_text.then(|| text.to_owned())
}

/// On one line; with `{:#}` each member on its own. Equal elements in a row are counted.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

impl Value {
    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        match self {
            Self::Uint(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Enum {
                name: Some(name), ..
            } => f.write_str(name),
            Self::Enum { value, name: None } => write!(f, "{value}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Pointer(value) => write!(f, "{value:#x}"),
            Self::Bytes(bytes) => {
                f.write_str("bytes")?;
                bytes.iter().try_for_each(|byte| write!(f, " {byte:02x}"))
            }
            Self::Cut => f.write_str("…"),
            Self::Struct(members) => {
                let parts = members.iter().map(|(name, value)| (Some(name), value, 1));
                write_parts(f, ['{', '}'], parts.collect(), depth)
            }
            Self::Array(elements) => {
                let runs = elements.chunk_by(|one, next| one == next);
                let parts = runs.map(|run| (None, &run[0], run.len()));
                write_parts(f, ['[', ']'], parts.collect(), depth)
            }
        }
    }

    fn has_parts(&self) -> bool {
        match self {
            Self::Struct(members) => !members.is_empty(),
            Self::Array(elements) => elements.iter().any(Self::has_parts),
            _ => false,
        }
    }
}

/// Each with its name, if it has one, and how often it is there in a row.
fn write_parts(
    f: &mut fmt::Formatter<'_>,
    [open, close]: [char; 2],
    parts: Vec<(Option<&String>, &Value, usize)>,
    depth: usize,
) -> fmt::Result {
    let is_struct = open == '{';
    // Arrays of numbers are easier to read in a line.
    let on_lines = f.alternate() && (is_struct || parts.iter().any(|part| part.1.has_parts()));
    if parts.is_empty() {
        return write!(f, "{open}{close}");
    }
    write!(f, "{open}")?;
    let last = parts.len() - 1;
    for (number, (name, value, count)) in parts.into_iter().enumerate() {
        if on_lines {
            write!(f, "\n{:1$}", "", (depth + 1) * 2)?;
        } else if number > 0 || is_struct {
            f.write_str(" ")?;
        }
        if let Some(name) = name {
            write!(f, "{name}: ")?;
        }
        value.write(f, depth + 1)?;
        if count > 1 {
            write!(f, " × {count}")?;
        }
        if number < last && !on_lines {
            f.write_str(",")?;
        }
    }
    match (on_lines, is_struct) {
        (true, _) => write!(f, "\n{:1$}{close}", "", depth * 2),
        (false, true) => write!(f, " {close}"),
        (false, false) => write!(f, "{close}"),
    }
}

/// What a path leads to in a type: where it is, and what.
pub(super) fn locate<'a>(
    btf: &'a Btf,
    id: TypeId,
    path: &[Step<'_>],
    budget: &Budget,
) -> Result<Option<(u64, Type<'a>, bool)>, TypeError> {
    let mut at = 0_u64;
    let mut of = btf.get(id)?.stripped()?;
    let mut is_bit_field = false;
    for step in path {
        match (step, of.kind()) {
            (Step::Member(name), Kind::Struct | Kind::Union) => {
                let Some(layout) = Struct::from_id(btf, of.id())? else {
                    return Ok(None);
                };
                let Some(field) = layout.member(name, budget)? else {
                    return Ok(None);
                };
                at = at.saturating_add(field.offset);
                is_bit_field = field.bits.is_some();
                of = btf.get(field.type_id)?.stripped()?;
            }
            (Step::Index(index), Kind::Array) => {
                if *index >= of.array_len().unwrap_or(0) {
                    return Ok(None);
                }
                of = btf.get(of.target().unwrap_or(TypeId(0)))?.stripped()?;
                at = at.saturating_add(of.size()?.saturating_mul(u64::from(*index)));
            }
            _ => return Ok(None),
        }
    }
    Ok(Some((at, of, is_bit_field)))
}

/// A step of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    Member(&'a str),
    Index(u32),
}

/// The steps of `stats.per_cpu[3]`; nothing if it is not a path.
pub(super) fn steps(path: &str) -> Option<Vec<Step<'_>>> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        let mut pieces = part.split('[');
        let name = pieces.next().filter(|name| !name.is_empty())?;
        steps.push(Step::Member(name));
        for piece in pieces {
            let index = piece.strip_suffix(']')?.parse().ok()?;
            steps.push(Step::Index(index));
        }
    }
    Some(steps)
}
