//! ACPI tables as the guest reads them back, judged by ACPICA's own tool.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use ktstr::prelude::*;

const START: &str = "ACPI table ";

/// The tables of our own microVM have this OEM id, at this place in their header.
const OEM_ID: (std::ops::Range<usize>, &[u8]) = (10..16, b"KTSTR ");

/// In the guest: prints the tables that we made, one a line, in hexadecimal.
pub(crate) fn print_own() -> Result<()> {
    for entry in fs::read_dir("/sys/firmware/acpi/tables")? {
        let path = entry?.path();
        if !path.is_file() {
            continue;
        }
        let bytes = fs::read(&path)?;
        if bytes.get(OEM_ID.0) != Some(OEM_ID.1) {
            continue;
        }
        let name = path.file_name().context("a name")?.to_string_lossy();
        let mut line = format!("{START}{name} ");
        for byte in bytes {
            write!(line, "{byte:02x}")?;
        }
        println!("{line}");
    }
    Ok(())
}

/// One of them, on the host.
pub(crate) struct Table {
    pub(crate) name: String,
    bytes: Vec<u8>,
}

/// All of them in the output of a test.
pub(crate) fn printed(output: &str) -> Vec<Table> {
    let table = |line: &str| {
        let (name, hex) = line.strip_prefix(START)?.split_once(' ')?;
        let digits = (0..hex.len()).step_by(2);
        let bytes = digits.map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok());
        Some(Table {
            name: name.to_owned(),
            bytes: bytes.collect::<Option<_>>()?,
        })
    };
    output.lines().filter_map(table).collect()
}

impl Table {
    /// `iasl` disassembles it, and assembles what came of it, without an error, warning or remark.
    pub(crate) fn assert_sound(&self) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(format!("{}.dat", self.name));
        fs::write(&file, &self.bytes).expect("a file");
        let said = iasl(&["-d"], &file);
        assert_eq!(complaint(&said), None, "{}: {said}", self.name);
        let said = iasl(&[], &file.with_extension("dsl"));
        assert_eq!(complaint(&said), None, "{}: {said}", self.name);
    }
}

/// All that `iasl` says of `file`.
fn iasl(options: &[&str], file: &Path) -> String {
    let ended = Command::new("iasl")
        .args(options)
        .arg(file)
        .output()
        .expect("iasl runs; `cargo xtask setup` installs it");
    let text = [ended.stdout, ended.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(ended.status.success(), "{text}");
    text
}

/// The first line with an error, warning or remark in it.
fn complaint(said: &str) -> Option<&str> {
    said.lines().find(|line| {
        let line = line.to_lowercase();
        let none = line
            .replace("0 errors", "")
            .replace("0 warnings", "")
            .replace("0 remarks", "");
        ["error", "warning", "remark", "invalid", "incorrect"]
            .iter()
            .any(|word| none.contains(word))
    })
}

#[test]
fn a_damaged_table_is_not_sound() {
    let mut bytes = b"SLIT\x2d\0\0\0\x01\0KTSTR KTSTRVM \x01\0\0\0KTST\x01\0\0\0".to_vec();
    bytes.extend([1, 0, 0, 0, 0, 0, 0, 0, 10]);
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[9] = sum.wrapping_neg();
    let mut table = Table {
        name: "SLIT".to_owned(),
        bytes,
    };
    table.assert_sound();
    table.bytes[44] = 11;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("SLIT.dat");
    fs::write(&file, &table.bytes).unwrap();
    let said = iasl(&["-d"], &file);
    assert!(complaint(&said).is_some(), "{said}");
}
