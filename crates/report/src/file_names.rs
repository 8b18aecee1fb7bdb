//! Names of the files in a run's folder.
//!
//! ```text
//! steady.two_llcs.json          the sidecar of `steady::two_llcs`
//! steady.two_llcs+dump.json     its failure dump
//! steady.two_llcs+2.json        the sidecar of its second attempt
//! steady.two_llcs+4711.log      the harness's own log of it, by process 4711
//! ```
//!
//! A `+` is in no test's part of a name, so no two files can want one name.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// Room for an attempt's suffix within the 255 bytes that Linux file systems allow a name.
const MAX_STEM_LEN: usize = 200;

const EXTENSION: &str = "json";

/// What the name of a failure dump ends with.
const DUMP: &str = "+dump.json";

/// The sidecar of an attempt, counted from 1.
pub(crate) fn sidecar(test: &str, attempt: u32) -> String {
    let stem = escaped(test);
    match attempt {
        1 => format!("{stem}.{EXTENSION}"),
        _ => format!("{stem}+{attempt}.{EXTENSION}"),
    }
}

/// Whether this is the name of a sidecar. Hidden files are being written, or were when their writer was killed.
pub(crate) fn is_sidecar(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let is_hidden = name.starts_with(b".");
    let is_dump = name.ends_with(DUMP.as_bytes());
    !is_hidden && !is_dump && path.extension().is_some_and(|found| found == EXTENSION)
}

/// Where the failure dump lies of the test whose sidecar is at `path`.
pub(crate) fn dump(path: &Path) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(DUMP);
    path.with_file_name(name)
}

/// Where process `pid` logs what it does for a test, in the folder of its run.
pub(crate) fn log(run: &Path, test: &str, pid: u32) -> PathBuf {
    run.join(format!("{}+{pid}.log", escaped(test)))
}

/// The test's name as part of a file name: readable, without a character that a file system, a shell or an artifact
/// store minds, and different for different names. `::` becomes `.`, and what is not a letter, digit, `-` or `_` becomes
/// `%` and two hexadecimal digits a byte. A name that is too long ends in `%~` and a hash.
fn escaped(test: &str) -> String {
    let mut escaped = String::new();
    for (number, part) in test.split("::").enumerate() {
        if number > 0 {
            // A leading dot would hide the file.
            escaped.push_str(if escaped.is_empty() { "%3A%3A" } else { "." });
        }
        for byte in part.bytes() {
            let is_first = escaped.is_empty();
            match byte {
                // A leading dash would be an option.
                b'-' if is_first => escaped.push_str("%2D"),
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => {
                    escaped.push(byte.into());
                }
                _ => _ = write!(escaped, "%{byte:02X}"),
            }
        }
    }
    match escaped.len() {
        0 => "%".to_owned(),
        1..=MAX_STEM_LEN => escaped,
        _ => {
            let mut hasher = DefaultHasher::new();
            test.hash(&mut hasher);
            let hash = format!("%~{:016x}", hasher.finish());
            escaped.truncate(MAX_STEM_LEN - hash.len());
            escaped + &hash
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_name_is_one_plain_file_name() {
        assert_eq!(escaped("steady::two_llcs"), "steady.two_llcs");
        assert_eq!(escaped("gauntlet/a/1 2"), "gauntlet%2Fa%2F1%202");
        assert_eq!(
            escaped("../../etc/passwd"),
            "%2E%2E%2F%2E%2E%2Fetc%2Fpasswd"
        );
        assert_eq!(escaped("::a::b"), "%3A%3Aa.b");
        assert_eq!(escaped("-a-b"), "%2Da-b");
        assert_eq!(escaped(""), "%");
        assert_eq!(escaped(&"ä".repeat(5000)).len(), MAX_STEM_LEN);
    }

    #[test]
    fn fault_e6_names_that_differ_have_files_that_differ() {
        let long = "a".repeat(MAX_STEM_LEN);
        let names = [
            "a",
            "a::b",
            "a.b",
            "a:b",
            "a_b",
            "a/b",
            "a%2Eb",
            "a::::b",
            "::a",
            "a::2",
            "a+2",
            "a::dump",
            "a+dump",
            "",
            "%",
            ":",
            "::",
            "ä",
            &long,
            &format!("{long}b"),
            &format!("{long}c"),
        ];
        let mut stems: Vec<String> = names.iter().map(|name| escaped(name)).collect();
        stems.sort_unstable();
        stems.dedup();
        assert_eq!(stems.len(), names.len(), "{stems:?}");
        for stem in stems {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.%~".contains(c);
            assert!(
                stem.chars().all(is_plain) && !stem.starts_with(['.', '-']),
                "{stem}"
            );
        }
    }
}
