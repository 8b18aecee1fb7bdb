//! The shared libraries of a program, found the way the loader finds them (ld.so(8)).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::elf::{DynamicNeeds, ElfError, dynamic_needs};

/// Where loaders of the big distributions look without being told.
const DEFAULT_FOLDERS: [&str; 6] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];

const LOADER_CONFIG: &str = "/etc/ld.so.conf";

/// A program's libraries can't be gathered.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// A library is nowhere the loader would look.
    #[error(
        "{needed_by} needs the shared library {name}, which is in none of the loader's folders; \
         install it, or name its folder in LD_LIBRARY_PATH"
    )]
    NotFound {
        /// The library's name.
        name: String,
        /// The file that needs it.
        needed_by: PathBuf,
    },
    /// A file can't be read.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file isn't an ELF file.
    #[error(transparent)]
    Elf(#[from] ElfError),
}

/// The files that a program needs in the guest besides itself.
#[derive(Debug, Default)]
pub(super) struct Closure {
    /// By their path in the guest, which is where the loader found them on the host.
    pub(super) files: BTreeMap<PathBuf, PathBuf>,
    /// Folders that the guest's loader must be told of.
    pub(super) extra_folders: BTreeSet<PathBuf>,
}

/// Gathers the loader and all libraries of `program`, theirs included. `library_path` is the value of
/// `LD_LIBRARY_PATH` to honour.
pub(super) fn closure(program: &Path, library_path: Option<&str>) -> Result<Closure, LibraryError> {
    let told: Vec<PathBuf> = folders(library_path.unwrap_or_default()).collect();
    let configured = configured_folders(Path::new(LOADER_CONFIG), 0);
    let mut found = Closure::default();
    let mut seen = BTreeSet::new();
    let mut queue = VecDeque::from([program.to_owned()]);
    while let Some(file) = queue.pop_front() {
        let needs = read_needs(&file)?;
        if let Some(loader) = &needs.loader {
            found.files.insert(loader.clone(), loader.clone());
        }
        let own = own_folders(&file, &needs);
        for name in &needs.libraries {
            if !seen.insert(name.clone()) {
                continue;
            }
            let defaults = DEFAULT_FOLDERS.iter().map(PathBuf::from);
            let candidates = own.iter().chain(&told).cloned().chain(defaults);
            let library = candidates
                .chain(configured.iter().cloned())
                .map(|folder| folder.join(name))
                .find(|path| path.is_file())
                .ok_or_else(|| LibraryError::NotFound {
                    name: name.clone(),
                    needed_by: file.clone(),
                })?;
            if let Some(folder) = library.parent()
                && !DEFAULT_FOLDERS
                    .iter()
                    .any(|known| folder == Path::new(known))
            {
                found.extra_folders.insert(folder.to_owned());
            }
            found.files.insert(library.clone(), library.clone());
            queue.push_back(library);
        }
    }
    Ok(found)
}

fn read_needs(path: &Path) -> Result<DynamicNeeds, LibraryError> {
    let bytes = fs::read(path).map_err(|source| LibraryError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(dynamic_needs(path, &bytes)?)
}

fn own_folders(file: &Path, needs: &DynamicNeeds) -> Vec<PathBuf> {
    let origin = file
        .parent()
        .unwrap_or(Path::new("/"))
        .display()
        .to_string();
    let expand = |folder: &String| {
        folder
            .replace("${ORIGIN}", &origin)
            .replace("$ORIGIN", &origin)
    };
    needs
        .search
        .iter()
        .map(|folder| expand(folder).into())
        .collect()
}

fn folders(list: &str) -> impl Iterator<Item = PathBuf> + '_ {
    list.split(':')
        .filter(|folder| folder.starts_with('/'))
        .map(PathBuf::from)
}

/// Folders named in ld.so.conf, with its `include` lines of the form `folder/*.conf`. Unreadable files
/// count as empty, as they do for the loader.
fn configured_folders(config: &Path, depth: u32) -> Vec<PathBuf> {
    let Ok(text) = fs::read_to_string(config) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(pattern) = line.strip_prefix("include ") {
            if depth < 4 {
                let included = included_files(Path::new(pattern.trim()));
                found.extend(
                    included
                        .iter()
                        .flat_map(|file| configured_folders(file, depth + 1)),
                );
            }
        } else if line.starts_with('/') {
            found.push(line.into());
        }
    }
    found
}

fn included_files(pattern: &Path) -> Vec<PathBuf> {
    let Some(folder) = pattern.parent() else {
        return Vec::new();
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "conf")
        })
        .collect();
    files.sort();
    files
}
