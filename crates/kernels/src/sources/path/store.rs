//! What was found goes into the cache, under a key that its contents give it.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::super::deb::{self, Unpacked};
use super::super::import::{ImageFile, Provenance, import};
use super::super::regular;
use super::parts::Parts;
use super::{PathError, read_error};
use crate::cache::{Begin, Cache, Entry, MODULES_DIR, Origin, Partial};
use crate::progress::{Event, Progress};

/// Most bytes of a module's file.
const MAX_MODULE_BYTES: u64 = 1 << 30;
/// Most bytes of a config; the largest have 300 kB.
const MAX_CONFIG_BYTES: u64 = 16 << 20;
/// Most bytes of a package.
const MAX_DEB_BYTES: u64 = 8 << 30;

/// A key that changes when a byte of any part does. It decides that a kernel is the one that was stored before,
/// so it is of a hash by which no two kernels are the same.
#[derive(Default)]
struct ContentKey(blake3::Hasher);

impl ContentKey {
    fn add(&mut self, name: &str, contents: &blake3::Hash) {
        self.0.update(&(name.len() as u64).to_le_bytes());
        self.0.update(name.as_bytes());
        self.0.update(contents.as_bytes());
    }

    /// 128 bits of the hash are a key that can still be typed.
    fn finish(self, release: &str) -> String {
        let release: String = release
            .chars()
            .filter(|&c| crate::spec::is_key_char(c))
            .take(80)
            .collect();
        let hash = self.0.finalize().to_hex();
        format!("file-{release}-{}", &hash[..32])
    }
}

/// The hash of a file that need not fit into memory.
fn hash_of(file: impl Read) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file)?;
    Ok(hasher.finalize())
}

fn provenance(path: &Path) -> Provenance {
    Provenance {
        source: path.display().to_string(),
        origin: Origin::File {
            path: path.to_owned(),
        },
    }
}

pub(super) fn parts(
    cache: &Cache,
    path: &Path,
    parts: &Parts,
    progress: &dyn Progress,
) -> Result<Entry, PathError> {
    let config = match &parts.config {
        Some(path) => Some(regular::read(path, MAX_CONFIG_BYTES, "a kernel's config")?),
        None => None,
    };
    let modules = parts
        .modules
        .as_deref()
        .map(module_files)
        .transpose()?
        .unwrap_or_default();
    let mut key = ContentKey::default();
    key.add("image", &blake3::hash(&parts.image.bytes));
    key.add(
        "config",
        &blake3::hash(config.as_deref().unwrap_or_default()),
    );
    for file in &modules {
        key.add(&file.relative, &file.hash);
    }
    let partial = match cache.begin(&key.finish(&parts.release), progress)? {
        Begin::Present(entry) => return Ok(*entry),
        Begin::Absent(partial) => partial,
    };
    copy_modules(&modules, &partial, progress)?;
    let entry = import(partial, &parts.image, config, provenance(path), progress)?;
    cache.prune_given(progress);
    Ok(entry)
}

/// One file of a module tree on this machine.
struct ModuleSource {
    path: PathBuf,
    relative: String,
    hash: blake3::Hash,
}

/// The modules and lists of a tree, in a stable order. `build` and `source` are links to elsewhere.
fn module_files(root: &Path) -> Result<Vec<ModuleSource>, PathError> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|source| read_error(&folder, source))? {
            let entry = entry.map_err(|source| read_error(&folder, source))?;
            let path = entry.path();
            let metadata = entry
                .metadata()
                .map_err(|source| read_error(&path, source))?;
            if metadata.is_dir() {
                // `.git` of a tree is larger than all else, and holds no modules.
                if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                    folders.push(path);
                }
                continue;
            }
            let relative = path
                .strip_prefix(root)
                .ok()
                .and_then(Path::to_str)
                .map(str::to_owned);
            if let Some(relative) = relative
                && metadata.is_file()
                // A list with a file on each line has them.
                && !relative.contains(char::is_control)
                && (relative.contains(".ko") || relative.starts_with("modules."))
            {
                let file = regular::open(&path, MAX_MODULE_BYTES, "a module")?;
                let hash = hash_of(file).map_err(|source| read_error(&path, source))?;
                files.push(ModuleSource {
                    path,
                    relative,
                    hash,
                });
            }
        }
    }
    files.sort_by(|a, b| a.relative.cmp(&b.relative));
    Ok(files)
}

fn copy_modules(
    files: &[ModuleSource],
    partial: &Partial<'_>,
    progress: &dyn Progress,
) -> Result<(), PathError> {
    if !files.is_empty() {
        progress.event(&Event::Unpack {
            name: format!("{} module files", files.len()),
        });
    }
    for file in files {
        let target = partial.dir().join(MODULES_DIR).join(&file.relative);
        let bytes = regular::read(&file.path, MAX_MODULE_BYTES, "a module")?;
        if blake3::hash(&bytes) != file.hash {
            return Err(PathError::Changed {
                path: file.path.clone(),
            });
        }
        deb::write_file(&target, &bytes).map_err(|source| partial.write_error(source))?;
    }
    Ok(())
}

pub(super) fn packages(
    cache: &Cache,
    path: &Path,
    debs: &[PathBuf],
    progress: &dyn Progress,
) -> Result<Entry, PathError> {
    let mut key = ContentKey::default();
    let mut open = Vec::new();
    for deb in debs {
        let mut file = regular::open(deb, MAX_DEB_BYTES, "a Debian package")?;
        let hash = hash_of(&mut file).map_err(|source| read_error(deb, source))?;
        key.add("deb", &hash);
        open.push((deb, file));
    }
    let name = path
        .file_stem()
        .and_then(OsStr::to_str)
        .unwrap_or("packages");
    let partial = match cache.begin(&key.finish(name), progress)? {
        Begin::Present(entry) => return Ok(*entry),
        Begin::Absent(partial) => partial,
    };
    let mut unpacked = Unpacked::default();
    for (deb, file) in &mut open {
        progress.event(&Event::Unpack {
            name: deb.display().to_string(),
        });
        deb::unpack_file(file, deb, &partial, &mut unpacked)?;
    }
    let bytes = unpacked
        .vmlinuz
        .ok_or_else(|| PathError::NoImageInPackage {
            path: path.to_owned(),
        })?;
    let has_modules = partial.dir().join(MODULES_DIR).is_dir();
    let image = ImageFile {
        path: path.to_owned(),
        bytes,
    };
    let entry = import(partial, &image, unpacked.config, provenance(path), progress)?;
    if !has_modules {
        progress.event(&Event::Warning(format!(
            "{} has no modules in it: what the kernel has as modules can't be loaded",
            path.display()
        )));
    }
    cache.prune_given(progress);
    Ok(entry)
}
