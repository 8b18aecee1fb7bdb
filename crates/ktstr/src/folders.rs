//! Where a relative path starts that a person wrote into an environment variable.
//!
//! It is meant from the folder in which the person was. `cargo ktstr test` knows that folder, and hands absolute paths
//! to the tests. Under plain cargo or nextest a test runs in the folder of its package, and has to guess.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::settings_error::SettingsError;

/// Folders in which a relative path may start, the likeliest first.
#[derive(Clone, Debug)]
pub(crate) struct Folders(Vec<PathBuf>);

impl Folders {
    /// For a command: its working folder.
    pub(crate) fn of_command() -> Self {
        Self(vec![working_folder()])
    }

    /// For a test of the workspace at `root`, run in `working`, by a shell whose folder was `shell`.
    pub(crate) fn around(root: PathBuf, working: &Path, shell: Option<PathBuf>) -> Self {
        // A shell elsewhere is not the one that started this, or has told it another folder.
        let shell = shell.filter(|shell| shell.starts_with(&root) && shell.is_dir());
        let mut folders: Vec<PathBuf> = Vec::new();
        for folder in shell.into_iter().chain([root, working.to_owned()]) {
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        Self(folders)
    }

    /// A folder that may have to be made: below the likeliest, so that it is the same for all packages.
    pub(crate) fn own(&self, path: &Path) -> PathBuf {
        self.0
            .first()
            .map_or(path.to_owned(), |folder| folder.join(path))
    }

    /// A file that the variable `name` names, where it is.
    pub(crate) fn existing(
        &self,
        name: &'static str,
        path: PathBuf,
    ) -> Result<PathBuf, SettingsError> {
        if path.is_absolute() {
            return Ok(path);
        }
        let candidates = || self.0.iter().map(|folder| folder.join(&path));
        candidates().find(|path| path.exists()).ok_or_else(|| {
            let tried: Vec<String> = candidates()
                .map(|path| path.display().to_string())
                .collect();
            SettingsError {
                name,
                value: path.display().to_string(),
                reason: format!("there is no such file; tried {}", tried.join(", ")),
            }
        })
    }
}

pub(crate) fn working_folder() -> PathBuf {
    env::current_dir().unwrap_or_default()
}

/// The root of the workspace that the package in `folder` belongs to: the nearest folder whose manifest says so, else
/// the nearest with a lock file, else that of the package.
pub(crate) fn workspace_root(folder: &Path) -> PathBuf {
    let says_so = |folder: &&Path| {
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
        manifest
            .lines()
            .any(|line| line.trim_start().starts_with("[workspace"))
    };
    let is_locked = |folder: &&Path| folder.join("Cargo.lock").exists();
    let root = folder.ancestors().find(says_so);
    root.or_else(|| folder.ancestors().find(is_locked))
        .unwrap_or(folder)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Workspace(tempfile::TempDir);

    impl Workspace {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            for folder in ["bin", "crates/a/src", "crates/a/local"] {
                fs::create_dir_all(root.path().join(folder)).unwrap();
            }
            fs::write(root.path().join("Cargo.toml"), "[workspace]\n").unwrap();
            fs::write(root.path().join("crates/a/Cargo.toml"), "[package]\n").unwrap();
            fs::write(root.path().join("bin/x"), "").unwrap();
            fs::write(root.path().join("crates/a/local/y"), "").unwrap();
            Self(root)
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        /// As for a test of the package `a`, started by a shell in `shell`.
        fn folders(&self, shell: Option<&str>) -> Folders {
            let package = self.path("crates/a");
            Folders::around(
                workspace_root(&package),
                &package,
                shell.map(|shell| self.path(shell)),
            )
        }
    }

    #[test]
    fn fault_f1_a_path_starts_where_the_user_was() {
        let workspace = Workspace::new();
        let found = |shell, path: &str| {
            let folders = workspace.folders(shell);
            folders
                .existing("KTSTR_SCHEDULER", PathBuf::from(path))
                .unwrap()
        };
        assert_eq!(found(Some(""), "bin/x"), workspace.path("bin/x"));
        assert_eq!(found(Some("bin"), "x"), workspace.path("bin/x"));
        assert_eq!(found(None, "bin/x"), workspace.path("bin/x"));
        assert_eq!(
            found(Some("/"), "local/y"),
            workspace.path("crates/a/local/y")
        );
        assert_eq!(found(None, "/no/such"), Path::new("/no/such"));
    }

    #[test]
    fn fault_f1_a_folder_is_the_same_for_every_package() {
        let workspace = Workspace::new();
        let lock = Path::new("mylock");
        assert_eq!(workspace.folders(None).own(lock), workspace.path("mylock"));
        let in_shell = workspace.folders(Some("bin")).own(lock);
        assert_eq!(in_shell, workspace.path("bin/mylock"));
    }

    #[test]
    fn fault_f1_a_file_that_is_nowhere_is_named_with_all_that_was_tried() {
        let workspace = Workspace::new();
        let folders = workspace.folders(Some("bin"));
        let error = folders
            .existing("KTSTR_SCHEDULER", PathBuf::from("bin/z"))
            .unwrap_err();
        let error = error
            .to_string()
            .replace(&*workspace.0.path().to_string_lossy(), "ROOT");
        insta::assert_snapshot!(error, @"the environment variable KTSTR_SCHEDULER is `bin/z`: there is no such file; tried ROOT/bin/bin/z, ROOT/bin/z, ROOT/crates/a/bin/z");
    }
}
