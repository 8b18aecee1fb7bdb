//! An image file, and what lies beside it.

use std::path::Path;

use super::super::import::ImageFile;
use super::PathError;
use super::parts::{Found, Parts, other_trees};

/// A file that is not a package.
pub(super) fn look(path: &Path) -> Result<Option<Found>, PathError> {
    if path.is_dir() {
        return Ok(None);
    }
    parts_beside(path).map(|parts| Some(Found::Image(parts)))
}

/// An image file: its config may lie beside it, its modules where installing it put them.
pub(super) fn parts_beside(image: &Path) -> Result<Parts, PathError> {
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
        announcement: None,
        passed_over: if found.is_some() {
            Vec::new()
        } else {
            other_trees(&modules)
        },
        modules: found,
    })
}
