//! What was found goes into the cache, under a key that its contents give it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::super::deb::{self, Unpacked};
use super::super::import::{ImageFile, Provenance, import};
use super::{Parts, PathError, read_error};
use crate::cache::{Begin, Cache, Entry, MODULES_DIR, Origin, Partial};
use crate::progress::{Event, Progress};

/// A key that changes when any part does.
#[derive(Default)]
struct ContentKey(crc32fast::Hasher);

impl ContentKey {
    fn add(&mut self, name: &str, bytes: &[u8]) {
        self.0.update(name.as_bytes());
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Adds a file without reading it: what a build changes when it changes a file.
    fn add_stamp(&mut self, name: &str, metadata: &fs::Metadata) {
        let modified = metadata
            .modified()
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        self.0.update(name.as_bytes());
        self.0.update(&metadata.len().to_le_bytes());
        self.0
            .update(&modified.unwrap_or_default().as_nanos().to_le_bytes());
    }

    fn finish(self, release: &str) -> String {
        let release: String = release
            .chars()
            .filter(|&c| crate::spec::is_key_char(c))
            .take(80)
            .collect();
        format!("file-{release}-{:08x}", self.0.finalize())
    }
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
        Some(path) => Some(fs::read(path).map_err(|source| read_error(path, source))?),
        None => None,
    };
    let modules = parts
        .modules
        .as_deref()
        .map(module_files)
        .transpose()?
        .unwrap_or_default();
    let mut key = ContentKey::default();
    key.add("image", &parts.image.bytes);
    key.add("config", config.as_deref().unwrap_or_default());
    for file in &modules {
        key.add_stamp(&file.relative, &file.metadata);
    }
    let partial = match cache.begin(&key.finish(&parts.release), progress)? {
        Begin::Present(entry) => return Ok(*entry),
        Begin::Absent(partial) => partial,
    };
    copy_modules(&modules, &partial, progress)?;
    Ok(import(
        partial,
        &parts.image,
        config,
        provenance(path),
        progress,
    )?)
}

/// One file of a module tree on this machine.
struct ModuleSource {
    path: PathBuf,
    relative: String,
    metadata: fs::Metadata,
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
                folders.push(path);
                continue;
            }
            let relative = path
                .strip_prefix(root)
                .ok()
                .and_then(Path::to_str)
                .map(str::to_owned);
            if let Some(relative) = relative
                && metadata.is_file()
                && (relative.contains(".ko") || relative.starts_with("modules."))
            {
                files.push(ModuleSource {
                    path,
                    relative,
                    metadata,
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
        let bytes = fs::read(&file.path).map_err(|source| read_error(&file.path, source))?;
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
    for deb in debs {
        let bytes = fs::read(deb).map_err(|source| read_error(deb, source))?;
        key.add("deb", &bytes);
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
    for deb in debs {
        progress.event(&Event::Unpack {
            name: deb.display().to_string(),
        });
        deb::unpack(deb, &partial, &mut unpacked)?;
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
        progress.event(&Event::Note(format!(
            "{} has no modules in it: what the kernel has as modules can't be loaded",
            path.display()
        )));
    }
    Ok(entry)
}
