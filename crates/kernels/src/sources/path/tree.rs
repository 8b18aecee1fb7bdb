//! A kernel's source tree that is built.

use std::fs;
use std::path::Path;

use super::PathError;
use super::image::parts_beside;
use super::parts::{Found, Parts};

/// Where a build of x86 leaves its boot image (arch/x86/boot/Makefile).
const IMAGE: &str = "arch/x86/boot/bzImage";

/// A folder with the kernel's own top-level files. The image has the ELF file in it; config and modules are the tree's.
pub(super) fn look(folder: &Path) -> Result<Option<Found>, PathError> {
    if !(folder.join("Kbuild").is_file() && folder.join("kernel/sched").is_dir()) {
        return Ok(None);
    }
    let image = folder.join(IMAGE);
    if !image.is_file() {
        return Err(PathError::NotBuilt {
            path: folder.to_owned(),
        });
    }
    let parts = parts_beside(&image)?;
    // A build with modules ends with this list of them.
    let modules = Some(folder.to_owned()).filter(|tree| tree.join("modules.order").is_file());
    let announcement = announcement(folder, &image, &parts, modules.is_some());
    Ok(Some(Found::Image(Parts {
        modules,
        announcement: Some(announcement),
        passed_over: Vec::new(),
        ..parts
    })))
}

fn announcement(folder: &Path, image: &Path, parts: &Parts, has_modules: bool) -> String {
    let what = if has_modules {
        "image, config and modules"
    } else {
        "image and config, no modules"
    };
    let mut text = format!(
        "{} is a kernel tree that is built: taking its {what} ({})",
        folder.display(),
        parts.release
    );
    if is_newer(&folder.join(".config"), image) {
        text.push_str(
            "; its .config is newer than its image, so `make` would build another kernel",
        );
    }
    text
}

/// Whether `file` was changed after `than`.
fn is_newer(file: &Path, than: &Path) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|file| file.modified());
    matches!((changed(file), changed(than)), (Ok(file), Ok(than)) if file > than)
}
