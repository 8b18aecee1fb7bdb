//! Rules that a file's name or text shows.

use std::ffi::OsStr;
use std::path::Path;

use crate::source_file::{SourceFile, is_rust};

/// Lines beyond which a file has too many things in it.
const MAX_LINES: usize = 800;

/// Names that say nothing of what is inside.
const BANNED_NAMES: [&str; 6] = ["utils", "util", "common", "imp", "helpers", "misc"];

// Put together here, so that this file does not hold them.
const UNSAFE_LINT: &str = concat!("unsafe", "_code");
const MIRROR_HOSTS: [&str; 10] = [
    concat!("deb", ".debian.org"),
    concat!("ftp", ".debian.org"),
    concat!("security", ".debian.org"),
    concat!("snapshot", ".debian.org"),
    concat!("archive", ".debian.org"),
    concat!("archive", ".ubuntu.com"),
    concat!("security", ".ubuntu.com"),
    concat!("ports", ".ubuntu.com"),
    concat!("index", ".crates.io"),
    concat!("static", ".crates.io"),
];

/// Files that relax the lint on unsafe code without standing in `allowed`, and entries of `allowed` that
/// have no need to. The lint itself sees to it that nothing unsafe is written elsewhere.
pub fn unsafe_outside(files: &[SourceFile], allowed: &[&str]) -> Vec<String> {
    let relaxes = |file: &&SourceFile| {
        is_rust(&file.path)
            && ["allow(", "expect(", "warn("].iter().any(|attribute| {
                let text: String = file.text.split_whitespace().collect();
                text.contains(&format!("{attribute}{UNSAFE_LINT}"))
            })
    };
    let found: Vec<String> = files
        .iter()
        .filter(relaxes)
        .map(|file| file.path.display().to_string())
        .collect();
    let unlisted = found
        .iter()
        .filter(|path| !allowed.contains(&path.as_str()));
    let idle = allowed
        .iter()
        .filter(|path| !found.iter().any(|f| f == *path));
    unlisted
        .map(|path| {
            format!(
                "{path} has unsafe code: move it into a file that is listed for it, or list this one in \
                 tests/layering/tests/rules.rs and say why in ARCHITECTURE.md"
            )
        })
        .chain(idle.map(|path| format!("{path} is listed for unsafe code and has none: take it off")))
        .collect()
}

/// Rust files of more than 800 lines.
pub fn overlong(files: &[SourceFile]) -> Vec<String> {
    let rust = files.iter().filter(|file| is_rust(&file.path));
    rust.map(|file| (file, file.text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(file, lines)| {
            let path = file.path.display();
            format!(
                "{path} has {lines} lines, the most is {MAX_LINES}: split it by what it is about"
            )
        })
        .collect()
}

/// Files, folders and modules with a name that says nothing.
pub fn banned_names(files: &[SourceFile]) -> Vec<String> {
    let mut faults = Vec::new();
    for file in files.iter().filter(|file| is_rust(&file.path)) {
        let path = file.path.display();
        let folders = file.path.parent().into_iter().flat_map(Path::iter);
        let stem = file.path.file_stem();
        for name in folders.chain(stem).filter_map(OsStr::to_str) {
            if BANNED_NAMES.contains(&name) {
                faults.push(format!("{path}: `{name}` does not say what is in it"));
            }
        }
        for line in file.text.lines() {
            if let Some(name) = module_name(line)
                && BANNED_NAMES.contains(&name)
            {
                faults.push(format!(
                    "{path}: module `{name}` does not say what is in it"
                ));
            }
        }
    }
    faults
}

/// Files that name a package mirror or registry: the host's own configuration knows which to use.
pub fn mirror_hosts(files: &[SourceFile]) -> Vec<String> {
    let lock = OsStr::new("Cargo.lock");
    let mut faults = Vec::new();
    for file in files
        .iter()
        .filter(|file| file.path.file_name() != Some(lock))
    {
        for host in MIRROR_HOSTS
            .iter()
            .filter(|host| file.text.contains(**host))
        {
            let path = file.path.display();
            faults.push(format!(
                "{path} names the mirror {host}: take it from the host's configuration"
            ));
        }
    }
    faults
}

/// A crate with a program for the kernel in it: the kernel lends its functions to GPL programs only.
const LICENCE_WITH_BPF: &str = "license = \"(MIT OR Apache-2.0) AND GPL-2.0-only\"";

/// Manifests of crates that do not take lints, edition and licence from the workspace.
pub fn own_policy(manifests: &[SourceFile]) -> Vec<String> {
    let mut faults = Vec::new();
    for manifest in manifests {
        let lines: Vec<&str> = manifest.text.lines().map(str::trim).collect();
        let path = manifest.path.display();
        if !lines
            .windows(2)
            .any(|pair| pair == ["[lints]", "workspace = true"])
        {
            faults.push(format!("{path} lacks `[lints] workspace = true`"));
        }
        for key in ["edition", "license", "rust-version"] {
            let inherited = format!("{key}.workspace = true");
            let is_mixed = key == "license" && lines.contains(&LICENCE_WITH_BPF);
            if !is_mixed && !lines.contains(&inherited.as_str()) {
                faults.push(format!("{path} lacks `{inherited}`"));
            }
        }
    }
    faults
}

/// The name in `mod name;` or `pub(crate) mod name {`.
fn module_name(line: &str) -> Option<&str> {
    let mut words = line.split([' ', ';', '{']).filter(|word| !word.is_empty());
    let first = words.next()?;
    let keyword = if first.starts_with("pub") {
        words.next()?
    } else {
        first
    };
    if keyword == "mod" { words.next() } else { None }
}
