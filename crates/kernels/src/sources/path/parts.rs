//! A kernel as it lies on this machine.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::import::ImageFile;

/// What a path turned out to be.
pub(super) enum Found {
    Image(Parts),
    Packages(Vec<PathBuf>),
}

/// The parts of a kernel on this machine.
pub(super) struct Parts {
    pub(super) image: ImageFile,
    pub(super) release: String,
    pub(super) config: Option<PathBuf>,
    pub(super) modules: Option<PathBuf>,
    /// What a person should know of where it was found.
    pub(super) announcement: Option<String>,
    /// Folders with modules that are for other releases, so they are not taken.
    pub(super) passed_over: Vec<PathBuf>,
}

impl Parts {
    /// What a person must know of the modules.
    pub(super) fn warning(&self) -> Option<String> {
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
pub(super) fn other_trees(places: &[PathBuf]) -> Vec<PathBuf> {
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

/// Whether a folder is what `make modules_install` or a package makes of /lib/modules/RELEASE.
pub(super) fn is_module_tree(folder: &Path) -> bool {
    ["modules.order", "modules.builtin"]
        .iter()
        .any(|name| folder.join(name).is_file())
        || folder.join("kernel/drivers").is_dir()
}
