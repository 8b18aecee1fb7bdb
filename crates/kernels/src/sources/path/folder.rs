//! A folder with an image, packages or the modules of a kernel in it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::image::parts_beside;
use super::parts::{Found, Parts, is_module_tree, other_trees};
use super::{PathError, read_error};

/// A folder of any other kind.
pub(super) fn look(path: &Path) -> Result<Option<Found>, PathError> {
    if !path.is_dir() {
        return Ok(None);
    }
    look_in_folder(path).map(Some)
}

fn look_in_folder(folder: &Path) -> Result<Found, PathError> {
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
