//! The files of a package that a fetched program can use, below the entry's folder.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use crate::cache::Cache;
use crate::sources::DebError;
use crate::sources::deb::{self, Entry, Stop};

/// Folders of `usr/share` that hold nothing that a program reads to run.
const FOR_PEOPLE: [&str; 8] = [
    "doc",
    "man",
    "info",
    "locale",
    "lintian",
    "applications",
    "icons",
    "bash-completion",
];

/// A link that a package has.
#[derive(Debug)]
pub(super) struct Link {
    /// Where it is to be, below the entry's folder.
    path: PathBuf,
    /// What it points to.
    target: PathBuf,
}

/// Writes the files of a package below `root`, and returns its links, which [`make_links`] makes when all packages are
/// unpacked: until then there is no link that a file could be written through.
pub(super) fn unpack(package: &Path, root: &Path, cache: &Cache) -> Result<Vec<Link>, DebError> {
    let mut links = Vec::new();
    deb::each_entry_of(package, |path, entry| {
        let Some(path) = place(path) else {
            return Ok(());
        };
        match entry {
            Entry::Link(target) => links.extend(link(path, &target)),
            Entry::File(file) => {
                let is_executable = file.is_executable;
                write_file(&root.join(path), &file.bytes()?, is_executable)
                    .map_err(|source| Stop::Taker(cache.write_error(source).into()))?;
            }
        }
        Ok(())
    })?;
    Ok(links)
}

/// Where a file of a package is to be: `usr/…` as in the package, `lib/…` and `bin/…` where they are on a system with a
/// merged `/usr`. Nothing for what isn't needed.
fn place(path: &Path) -> Option<PathBuf> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    let parts = parts.strip_prefix(&["usr"]).unwrap_or(&parts);
    let wanted = match parts {
        ["lib" | "lib64", _, ..] => true,
        ["bin", _] => true,
        ["share", folder, _, ..] => !FOR_PEOPLE.contains(folder),
        _ => false,
    };
    wanted.then(|| Path::new("usr").join(parts.iter().collect::<PathBuf>()))
}

/// A link that stays below the entry's folder; others are left out.
fn link(path: PathBuf, target: &Path) -> Option<Link> {
    let mut depth = path.parent()?.components().count();
    for component in target.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::ParentDir => depth = depth.checked_sub(1)?,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(Link {
        path,
        target: target.to_owned(),
    })
}

/// Makes the links, none of them in a folder that is reached by another: what [`link`] counted would not hold there.
pub(super) fn make_links(links: &[Link], root: &Path) -> io::Result<()> {
    for Link { path, target } in links {
        let mut folder = root.to_owned();
        let mut parts = path.parent().into_iter().flat_map(Path::components);
        let reached_by_folders = parts.all(|part| {
            folder.push(part);
            !folder.is_symlink()
        });
        if !reached_by_folders {
            continue;
        }
        fs::create_dir_all(&folder)?;
        match symlink(target, root.join(path)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn write_file(path: &Path, bytes: &[u8], is_executable: bool) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, bytes)?;
    let mode = if is_executable { 0o755 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_program_uses_has_a_place() {
        let placed = |path: &str| place(Path::new(path)).map(|path| path.display().to_string());
        let same = "usr/share/qemu/bios.bin";
        assert_eq!(placed("./usr/share/qemu/bios.bin").as_deref(), Some(same));
        assert_eq!(
            placed("./lib/x86_64-linux-gnu/libnl-3.so.200").as_deref(),
            Some("usr/lib/x86_64-linux-gnu/libnl-3.so.200")
        );
        assert_eq!(placed("bin/busybox").as_deref(), Some("usr/bin/busybox"));
        for left_out in [
            "./etc/qemu-ifup",
            "./usr/share/doc/qemu/copyright",
            "./usr/lib/../../etc/passwd",
            "./usr/lib",
            "/",
        ] {
            assert_eq!(placed(left_out), None, "{left_out}");
        }
    }

    #[test]
    fn links_stay_below_the_folder() {
        let path = || PathBuf::from("usr/lib/x/liba.so.1");
        assert!(link(path(), Path::new("liba.so.1.2")).is_some());
        assert!(link(path(), Path::new("../../share/a")).is_some());
        assert!(link(path(), Path::new("../../../../etc/passwd")).is_none());
        assert!(link(path(), Path::new("a/../../../../../x")).is_none());
        assert!(link(path(), Path::new("/etc/passwd")).is_none());
    }

    #[test]
    fn a_link_is_not_made_through_another() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/lib/deep/er")).unwrap();
        let links = [
            link("usr/lib/deep/er/up".into(), Path::new("../..")).unwrap(),
            link("usr/lib/deep/er/up/out".into(), Path::new("../../../../x")).unwrap(),
            link("usr/lib/new/a".into(), Path::new("b")).unwrap(),
        ];
        make_links(&links, root.path()).unwrap();
        make_links(&links, root.path()).unwrap();
        assert!(root.path().join("usr/lib/new/a").is_symlink());
        assert!(!root.path().join("usr/lib/out").is_symlink());
    }
}
