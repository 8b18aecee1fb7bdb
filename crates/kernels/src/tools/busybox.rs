//! Finding a busybox that runs where there is nothing else.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::{Tool, find, is_program};
use crate::cache::Cache;

/// A busybox that runs without any library: where the distributions have it, else in a folder of
/// `search_path` (the value of `PATH`), else in the cache.
pub fn static_busybox(cache: &Cache, search_path: Option<&OsStr>) -> Option<PathBuf> {
    let fixed = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    let on_path = on_path("busybox", search_path);
    let fetched = || find(cache, Tool::Busybox).map(|fetched| fetched.program());
    fixed
        .into_iter()
        .chain(on_path)
        .find(|file| is_program(file) && is_static(file).unwrap_or(false))
        .or_else(fetched)
}

/// The programs of this name, in the order of the folders of `path`.
fn on_path(name: &str, path: Option<&OsStr>) -> Vec<PathBuf> {
    let folders = path.map(|path| env::split_paths(path).collect::<Vec<_>>());
    folders
        .unwrap_or_default()
        .into_iter()
        .map(|folder| folder.join(name))
        .filter(|file| is_program(file))
        .collect()
}

/// Whether it is a 64-bit x86 program that names no interpreter (`PT_INTERP`, elf(5)), which a program with
/// shared libraries would.
pub fn is_static(file: &Path) -> io::Result<bool> {
    // The program headers follow the file header in what any linker writes.
    let mut head = Vec::new();
    File::open(file)?.take(4096).read_to_end(&mut head)?;
    Ok(is_static_elf(&head))
}

fn is_static_elf(head: &[u8]) -> bool {
    const EM_X86_64: u16 = 62;
    const PT_INTERP: u32 = 3;
    let half = |at: usize| {
        Some(u16::from_le_bytes(
            head.get(at..at.checked_add(2)?)?.try_into().ok()?,
        ))
    };
    let interpreted = || {
        let offset = u64::from_le_bytes(head.get(32..40)?.try_into().ok()?);
        let (size, count) = (usize::from(half(54)?), usize::from(half(56)?));
        let first = usize::try_from(offset).ok()?;
        for number in 0..count {
            let at = first.checked_add(number * size)?;
            let kind = head.get(at..at.checked_add(4)?)?;
            if kind == PT_INTERP.to_le_bytes() {
                return Some(true);
            }
        }
        Some(false)
    };
    // 64-bit, little-endian.
    head.starts_with(b"\x7fELF\x02\x01")
        && half(18) == Some(EM_X86_64)
        && interpreted() == Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_libraries_is_not_static() {
        let own = env::current_exe().unwrap();
        assert!(!is_static(&own).unwrap());
    }

    #[test]
    fn an_elf_header_cut_short_is_not_static() {
        let mut head = vec![0; 64 + 56];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        head[18] = 62;
        head[32] = 64;
        head[54] = 56;
        head[56] = 1;
        head[64] = 1;
        assert!(is_static_elf(&head));
        head[64] = 3;
        assert!(!is_static_elf(&head), "it has an interpreter");
        head[64] = 1;
        head[56] = 100;
        assert!(
            !is_static_elf(&head),
            "its headers reach beyond the part that was read"
        );
        assert!(!is_static_elf(&head[..20]));
        assert!(!is_static_elf(b"#!/bin/sh\n"));
    }
}
