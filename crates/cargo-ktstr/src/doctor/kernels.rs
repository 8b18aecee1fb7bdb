//! The kernel cache and what is in it.

use std::fs;
use std::io;
use std::path::Path;

use ktstr_kernels::{CacheError, Entry, Kernel, Listed};
use nix::sys::statvfs::statvfs;

use super::Check;
use crate::{environment, format};

/// Space that fetching one kernel takes: packages, image, ELF file, modules.
const KERNEL_BYTES: u64 = 300_000_000;

/// The folder, then each kernel. `fetchable` says whether a kernel could be fetched.
pub(super) fn all(fetchable: bool) -> Vec<Check> {
    let cache = match environment::cache() {
        Ok(cache) => cache,
        Err(error) => return vec![unusable(&error)],
    };
    let listed = match cache.list() {
        Ok(listed) => listed,
        Err(error) => return vec![unusable(&error)],
    };
    let kernels: Vec<Check> = listed.iter().map(kernel).collect();
    let bootable = kernels
        .iter()
        .any(|check| check.state == super::State::Fine);
    let has_default = listed.iter().zip(&kernels).any(|(listed, check)| {
        let is_default = |entry: &Entry| !entry.is_given() && entry.missing_packages().is_empty();
        check.state == super::State::Fine && listed.entry.as_ref().is_ok_and(is_default)
    });
    let mut checks = vec![folder(cache.root(), bootable)];
    checks.extend(kernels);
    if !bootable {
        checks.push(none_usable(fetchable));
    } else if !has_default && !fetchable {
        checks.push(Check::note(
            "kernel",
            "none in the cache that is used by default, and none can be fetched",
            "name one: `--kernel KEY`",
        ));
    }
    checks
}

fn unusable(error: &CacheError) -> Check {
    Check::missing(
        "cache",
        error.to_string(),
        "set KTSTR_CACHE_DIR to a folder that can be read and written",
    )
}

fn none_usable(fetchable: bool) -> Check {
    if fetchable {
        Check::fine(
            "kernel",
            "none in the cache that can be used; `--kernel debian` fetches one",
        )
    } else {
        Check::missing(
            "kernel",
            "none in the cache that can be used, and none can be fetched",
            "give one as a path: `--kernel PATH`",
        )
    }
}

/// The folder need not exist, but whoever makes it must be able to.
fn folder(root: &Path, has_kernel: bool) -> Check {
    let what = "cache";
    let existing = root
        .ancestors()
        .find(|folder| folder.is_dir())
        .unwrap_or(Path::new("/"));
    let used = size_of(root).unwrap_or(0);
    let name = format!("{}, {} used", root.display(), format::size(used));
    if let Err(error) = try_to_write(existing) {
        let found = format!("{name}, can't be written: {error}");
        let advice = "make it writable, or set KTSTR_CACHE_DIR to a folder that is";
        // What is there can be used as it is.
        return if has_kernel {
            Check::note(what, found, advice)
        } else {
            Check::missing(what, found, advice)
        };
    }
    let Ok(free) = statvfs(existing).map(|fs| fs.blocks_available() * fs.fragment_size()) else {
        return Check::fine(what, name);
    };
    let found = format!("{name}, {} free", format::size(free));
    let advice = "free some space there, or set KTSTR_CACHE_DIR: a kernel takes about 300 MB";
    match (free < KERNEL_BYTES, has_kernel) {
        (false, _) => Check::fine(what, found),
        (true, true) => Check::note(what, found, advice),
        (true, false) => Check::missing(what, found, advice),
    }
}

/// Permissions alone don't tell: the file system may be read-only.
fn try_to_write(folder: &Path) -> io::Result<()> {
    let probe = folder.join(format!(".ktstr-doctor-{}", std::process::id()));
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&probe)?;
    fs::remove_file(probe)
}

fn size_of(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let found = entry.metadata()?;
        // A folder that has vanished takes no space.
        bytes += if found.is_dir() {
            size_of(&entry.path()).unwrap_or(0)
        } else {
            found.len()
        };
    }
    Ok(bytes)
}

fn kernel(listed: &Listed) -> Check {
    let what = "kernel";
    let key = &listed.key;
    let damaged = |error: &CacheError| {
        Check::note(
            what,
            error.to_string(),
            format!("cargo ktstr kernel clean {key}"),
        )
    };
    let entry = match &listed.entry {
        Ok(entry) => entry,
        Err(error) => return damaged(error),
    };
    let requirements = match Kernel::new(entry.clone()).and_then(|kernel| kernel.requirements()) {
        Ok(requirements) => requirements,
        Err(error) => return damaged(&error),
    };
    let mut more = String::new();
    if !entry.missing_packages().is_empty() {
        let missing = entry.missing_packages().join(", ");
        more = format!("\n  without {missing}, which left the archive; used when it is named");
    } else if entry.is_given() {
        more = "\n  given as a file; used when it is named".to_owned();
    }
    let lines = |requirements: &[ktstr_kernels::Requirement]| {
        requirements
            .iter()
            .map(|lacking| format!("\n  lacks {lacking}"))
            .collect::<String>()
    };
    if !requirements.can_boot() {
        let found = format!(
            "{key}: no test can run on it{}",
            lines(&requirements.missing)
        );
        return Check::note(what, found, "use another kernel");
    }
    if requirements.unchecked {
        let found = format!("{key}: its options are not known, so they were not checked{more}");
        return Check::fine(what, found);
    }
    Check::fine(
        what,
        format!("{key}{}{more}", lines(&requirements.warnings)),
    )
}
