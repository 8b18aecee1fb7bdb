//! A kernel that the user has: a bzImage, a vmlinux, Debian packages, or a folder with an image and modules.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::deb::{self, DebError, Unpacked};
use super::import::{ImageFile, ImportError, Provenance, import};
use crate::cache::{Begin, Cache, CacheError, Entry, MODULES_DIR, Origin, Partial};
use crate::progress::{Event, Progress};

/// Why a path is not a kernel that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// It can't be looked at.
    #[error("can't read {}: {source}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is a kernel's source tree.
    #[error(
        "{} is a kernel source tree, which would have to be built; building kernels is not supported yet{}",
        path.display(),
        built.as_deref().map_or_else(
            || ". Build it (make bzImage modules), then give the path of its arch/x86/boot/bzImage".to_owned(),
            |built| format!(". It has been built already: give {} to use that", built.display())
        )
    )]
    SourceTree {
        /// The tree.
        path: PathBuf,
        /// The image in it, when there is one.
        built: Option<PathBuf>,
    },
    /// The folder has no kernel.
    #[error("{} has no kernel in it: no vmlinuz, vmlinuz-RELEASE, bzImage, vmlinux or .deb", path.display())]
    NoImage {
        /// The folder.
        path: PathBuf,
    },
    /// The folder has several.
    #[error(
        "{} has several kernels in it; give the path of one: {}",
        path.display(),
        names.join(", ")
    )]
    Several {
        /// The folder.
        path: PathBuf,
        /// Their file names.
        names: Vec<String>,
    },
    /// The packages have no kernel image.
    #[error(
        "{} has no kernel image in it. Newer Debian kernels are split: linux-binary-* has the image, \
         linux-modules-* the modules; put all of them in one folder and give that",
        path.display()
    )]
    NoImageInPackage {
        /// The package, or the folder of packages.
        path: PathBuf,
    },
    /// A package can't be used.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// The kernel can't be used.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// What a path turned out to be.
enum Found {
    Image(Parts),
    Packages(Vec<PathBuf>),
}

/// The parts of a kernel on this machine.
struct Parts {
    image: PathBuf,
    config: Option<PathBuf>,
    modules: Option<PathBuf>,
}

/// Imports the kernel at `path`, or finds it in the cache when it was imported before.
pub(crate) fn fetch(
    cache: &Cache,
    path: &Path,
    progress: &dyn Progress,
) -> Result<Entry, PathError> {
    let path = std::path::absolute(path).map_err(|source| read_error(path, source))?;
    match look(&path)? {
        Found::Image(parts) => import_parts(cache, &path, &parts, progress),
        Found::Packages(debs) => import_packages(cache, &path, &debs, progress),
    }
}

fn read_error(path: &Path, source: io::Error) -> PathError {
    PathError::Read {
        path: path.to_owned(),
        source,
    }
}

fn look(path: &Path) -> Result<Found, PathError> {
    let metadata = fs::metadata(path).map_err(|source| read_error(path, source))?;
    if metadata.is_dir() {
        return look_in_folder(path);
    }
    if path.extension() == Some(OsStr::new("deb")) {
        return Ok(Found::Packages(vec![path.to_owned()]));
    }
    Ok(Found::Image(parts_beside(path)?))
}

/// An image file: its config may lie beside it, its modules where installing it put them.
fn parts_beside(image: &Path) -> Result<Parts, PathError> {
    let release = ImageFile::read(image)?.release()?;
    let folder = image.parent().unwrap_or(Path::new("/"));
    let mut configs = vec![
        folder.join(format!("config-{release}")),
        folder.join("config"),
        folder.join(".config"),
    ];
    if let Some(tree) = folder
        .to_str()
        .and_then(|folder| folder.strip_suffix("/arch/x86/boot"))
    {
        configs.push(Path::new(tree).join(".config"));
    }
    let mut modules = vec![folder.join("lib/modules").join(&release)];
    if let (Some(name), Some(root)) = (folder.file_name(), folder.parent())
        && name == "boot"
    {
        modules.push(root.join("lib/modules").join(&release));
        modules.push(root.join("usr/lib/modules").join(&release));
    }
    Ok(Parts {
        image: image.to_owned(),
        config: configs.into_iter().find(|path| path.is_file()),
        modules: modules.into_iter().find(|path| path.is_dir()),
    })
}

fn look_in_folder(folder: &Path) -> Result<Found, PathError> {
    if folder.join("Kbuild").is_file() && folder.join("kernel/sched").is_dir() {
        let built = Some(folder.join("arch/x86/boot/bzImage")).filter(|path| path.is_file());
        return Err(PathError::SourceTree {
            path: folder.to_owned(),
            built,
        });
    }
    let names = file_names(folder)?;
    let images: Vec<&String> = names.iter().filter(|name| is_image_name(name)).collect();
    let image = match images.as_slice() {
        [] => return packages_or_boot(folder, &names),
        [one] => folder.join(one),
        // A folder as `make install` leaves it has the ELF file beside the image.
        [one, other] if *other == "vmlinux" => folder.join(one),
        [other, one] if *other == "vmlinux" => folder.join(one),
        several => {
            return Err(PathError::Several {
                path: folder.to_owned(),
                names: several.iter().map(|&name| name.clone()).collect(),
            });
        }
    };
    let mut parts = parts_beside(&image)?;
    if is_module_tree(folder) {
        parts.modules = Some(folder.to_owned());
    } else if parts.modules.is_none() {
        let release = ImageFile::read(&image)?.release()?;
        let places = [
            folder.join("usr/lib/modules").join(&release),
            folder.join("modules").join(&release),
            folder.join("modules"),
        ];
        parts.modules = places.into_iter().find(|path| is_module_tree(path));
    }
    Ok(Found::Image(parts))
}

/// A folder without an image in it: packages, or the modules of a kernel that lies in /boot.
fn packages_or_boot(folder: &Path, names: &[String]) -> Result<Found, PathError> {
    let debs: Vec<PathBuf> = names
        .iter()
        .filter(|name| {
            name.ends_with(".deb") && name.starts_with("linux-") && !name.contains("-dbg")
        })
        .map(|name| folder.join(name))
        .collect();
    if !debs.is_empty() {
        return Ok(Found::Packages(debs));
    }
    let in_boot = || {
        let release = folder.file_name()?.to_str()?;
        let root = folder.parent()?.parent()?.parent()?;
        let roots = [Some(root), root.parent()];
        let mut images = roots
            .iter()
            .flatten()
            .map(|root| root.join("boot").join(format!("vmlinuz-{release}")));
        images.find(|path| path.is_file())
    };
    match in_boot().filter(|_| is_module_tree(folder)) {
        Some(image) => {
            let parts = parts_beside(&image)?;
            Ok(Found::Image(Parts {
                modules: Some(folder.to_owned()),
                ..parts
            }))
        }
        None => Err(PathError::NoImage {
            path: folder.to_owned(),
        }),
    }
}

fn is_image_name(name: &str) -> bool {
    ["vmlinuz", "bzImage", "vmlinux"].contains(&name) || name.starts_with("vmlinuz-")
}

/// Whether a folder is what `make modules_install` or a package makes of /lib/modules/RELEASE.
fn is_module_tree(folder: &Path) -> bool {
    ["modules.order", "modules.builtin"]
        .iter()
        .any(|name| folder.join(name).is_file())
        || folder.join("kernel/drivers").is_dir()
}

fn file_names(folder: &Path) -> Result<Vec<String>, PathError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(|source| read_error(folder, source))? {
        let entry = entry.map_err(|source| read_error(folder, source))?;
        if let Ok(name) = entry.file_name().into_string()
            && entry.path().is_file()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

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

fn import_parts(
    cache: &Cache,
    path: &Path,
    parts: &Parts,
    progress: &dyn Progress,
) -> Result<Entry, PathError> {
    let image = ImageFile::read(&parts.image)?;
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
    key.add("image", &image.bytes);
    key.add("config", config.as_deref().unwrap_or_default());
    for file in &modules {
        key.add_stamp(&file.relative, &file.metadata);
    }
    let partial = match cache.begin(&key.finish(&image.release()?), progress)? {
        Begin::Present(entry) => return Ok(*entry),
        Begin::Absent(partial) => partial,
    };
    copy_modules(&modules, &partial, progress)?;
    Ok(import(partial, &image, config, provenance(path), progress)?)
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
        let mut source = File::open(&file.path).map_err(|source| read_error(&file.path, source))?;
        let mut bytes = Vec::new();
        source
            .read_to_end(&mut bytes)
            .map_err(|source| read_error(&file.path, source))?;
        deb::write_file(&target, &bytes).map_err(|source| partial.write_error(source))?;
    }
    Ok(())
}

fn import_packages(
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
