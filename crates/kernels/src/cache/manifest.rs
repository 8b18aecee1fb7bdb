//! The list of module files with the size and checksum of each: one line a file, `size crc32 path`.
//!
//! It is apart from metadata.json because it has thousands of lines and most uses of a kernel need none
//! of them.

use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// One file of the module tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ManifestLine {
    pub(crate) size_bytes: u64,
    pub(crate) crc32: u32,
    /// Relative to the folder of the modules.
    pub(crate) path: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) lines: Vec<ManifestLine>,
}

impl Manifest {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let lines = text.lines().map(|line| {
            let mut parts = line.splitn(3, ' ');
            Some(ManifestLine {
                size_bytes: parts.next()?.parse().ok()?,
                crc32: u32::from_str_radix(parts.next()?, 16).ok()?,
                path: parts.next()?.to_owned(),
            })
        });
        Some(Self {
            lines: lines.collect::<Option<_>>()?,
        })
    }

    pub(crate) fn render(&self) -> String {
        self.lines.iter().fold(String::new(), |mut text, line| {
            // Writing to a String can't fail.
            let _ = writeln!(text, "{} {:08x} {}", line.size_bytes, line.crc32, line.path);
            text
        })
    }
}

/// Size and CRC-32 of a file, read once in pieces.
pub(crate) fn checksum(path: &Path) -> io::Result<(u64, u32)> {
    let mut file = File::open(path)?;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    let mut size_bytes = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((size_bytes, hasher.finalize()));
        }
        hasher.update(&buffer[..count]);
        size_bytes += count as u64;
    }
}
