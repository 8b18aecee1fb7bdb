//! Fuzz target: what must hold of any list that a mirror sends, of what apt says, and of the machine's own
//! sources.

use crate::sources::debian;

/// A list of packages with a version to look for; a Release file; the sources of a machine in either form; or
/// what apt wrote, as the first byte says.
pub fn apt(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(bytes);
    match kind % 5 {
        0 => {
            let (version, list) = text.split_once('\n').unwrap_or(("", &text));
            debian::fuzzing::packages(version, list.as_bytes());
        }
        1 => debian::fuzzing::release(&text),
        2 => debian::fuzzing::sources(&text, false),
        3 => debian::fuzzing::sources(&text, true),
        _ => debian::fuzzing::messages(&text),
    }
}
