//! Values that are rendered with type information of any kind.

use crate::bpf::Value;
use crate::btf::{Btf, TypeId};
use crate::budget::Budget;

/// A little above what is rendered of a value at most.
const MAX_VALUES: usize = 110_000;
/// A structure that is cut ends with a mark, which is beside what is counted of names and text.
const MAX_TEXT_BYTES: usize = (4 << 20) + MAX_VALUES * '…'.len_utf8();

/// Not more than is worth it, whatever the types say.
pub(super) fn render_bounded(btf: &Btf, id: TypeId, bytes: &[u8]) {
    if let Ok(value) = Value::render(btf, id, bytes, &Budget::default()) {
        let (values, text_bytes) = extent(&value);
        assert!(values <= MAX_VALUES, "{values} values");
        assert!(text_bytes <= MAX_TEXT_BYTES, "{text_bytes} bytes of text");
        let _ = value.get("a.b[1]");
        assert!(!value.to_string().is_empty() && !format!("{value:#}").is_empty());
    }
}

/// How many values, and how many bytes of names and text, there are in it.
fn extent(value: &Value) -> (usize, usize) {
    let add = |(values, text): (usize, usize), (more, longer): (usize, usize)| {
        (values + more, text + longer)
    };
    match value {
        Value::Struct(members) => members.iter().fold((1, 0), |sum, (name, member)| {
            add(add(sum, (0, name.len())), extent(member))
        }),
        Value::Array(elements) => elements.iter().map(extent).fold((1, 0), add),
        Value::Text(text) => (1, text.len()),
        Value::Bytes(bytes) => (1, bytes.len()),
        Value::Enum { name, .. } => (1, name.as_ref().map_or(0, String::len)),
        _ => (1, 0),
    }
}
