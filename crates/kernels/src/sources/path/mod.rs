//! A kernel that the user has: a bzImage, a vmlinux, Debian packages, or a folder with an image and modules.

mod store;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::deb::DebError;
use super::import::{ImageFile, ImportError};
use super::regular::FileError;
use crate::cache::{Cache, CacheError, Entry};
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
    #[error("{} has no kernel in it: no vmlinuz, vmlinuz-RELEASE, bzImage, vmlinux or linux-*.deb", path.display())]
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
    /// A file is being written while it is read.
    #[error("{} changed while it was read; try again when what writes it has ended", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A file can't be read, or isn't one.
    #[error(transparent)]
    File(#[from] FileError),
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
    image: ImageFile,
    release: String,
    config: Option<PathBuf>,
    modules: Option<PathBuf>,
    /// Folders with modules that are for other releases, so they are not taken.
    passed_over: Vec<PathBuf>,
}

/// Imports the kernel at `path`, or finds it in the cache when it was imported before.
pub(crate) fn fetch(
    cache: &Cache,
    path: &Path,
    progress: &dyn Progress,
) -> Result<Entry, PathError> {
    let path = std::path::absolute(path).map_err(|source| read_error(path, source))?;
    let entry = match look(&path)? {
        Found::Image(parts) => {
            if let Some(text) = parts.warning() {
                progress.event(&Event::Warning(text));
            }
            store::parts(cache, &path, &parts, progress)
        }
        Found::Packages(debs) => store::packages(cache, &path, &debs, progress),
    }?;
    entry.mark_used();
    Ok(entry)
}

impl Parts {
    /// What a person must know of the modules.
    fn warning(&self) -> Option<String> {
        if self.modules.is_some() || self.passed_over.is_empty() {
            return None;
        }
        let folders: Vec<String> = self
            .passed_over
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        Some(format!(
            "{} is kernel {}, and the modules beside it are for others ({}): it gets none of them, so what it has as \
             modules can't be loaded",
            self.image.path.display(),
            self.release,
            folders.join(", ")
        ))
    }
}

/// Module trees named for other releases in the folders where the one for this release would be.
fn other_trees(places: &[PathBuf]) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = places
        .iter()
        .filter_map(|place| fs::read_dir(place.parent()?).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
        .filter(|path| is_module_tree(path))
        .collect();
    found.sort();
    found.dedup();
    found
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
    let file = ImageFile::read(image)?;
    let release = file.release()?;
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
    let found = modules.iter().find(|path| path.is_dir()).cloned();
    Ok(Parts {
        image: file,
        release,
        // Anything but a folder, so that a pipe of this name is refused, not passed over.
        config: configs
            .into_iter()
            .find(|path| path.exists() && !path.is_dir()),
        passed_over: if found.is_some() {
            Vec::new()
        } else {
            other_trees(&modules)
        },
        modules: found,
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
    // An image, and packages that may be of another kernel: neither is preferred.
    if !images.is_empty() && names.iter().any(|name| is_package_name(name)) {
        let is_either = |name: &&String| is_image_name(name) || is_package_name(name);
        return Err(PathError::Several {
            path: folder.to_owned(),
            names: names.iter().filter(is_either).cloned().collect(),
        });
    }
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
        if is_named_for_another(folder, &parts.release) {
            parts.passed_over.push(folder.to_owned());
        } else {
            parts.modules = Some(folder.to_owned());
        }
    } else if parts.modules.is_none() {
        let named = [
            folder.join("usr/lib/modules").join(&parts.release),
            folder.join("modules").join(&parts.release),
        ];
        parts.passed_over.extend(other_trees(&named));
        let places = named.into_iter().chain([folder.join("modules")]);
        parts.modules = places.into_iter().find(|path| is_module_tree(path));
    }
    Ok(Found::Image(parts))
}

/// A folder without an image in it: packages, or the modules of a kernel that lies in /boot.
fn packages_or_boot(folder: &Path, names: &[String]) -> Result<Found, PathError> {
    let debs: Vec<PathBuf> = names
        .iter()
        .filter(|name| is_package_name(name))
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

fn is_package_name(name: &str) -> bool {
    name.ends_with(".deb") && name.starts_with("linux-") && !name.contains("-dbg")
}

/// Whether a folder is `modules/NAME` of another release, as installing them names it.
fn is_named_for_another(folder: &Path, release: &str) -> bool {
    let parent = folder.parent().and_then(Path::file_name);
    parent == Some(OsStr::new("modules")) && folder.file_name() != Some(OsStr::new(release))
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
