//! What this machine has.

use std::env;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ktstr_kernels::Cache;
use ktstr_kernels::tools;

use super::cargo_home;
use super::tool::{Evidence, Tool};

/// What decides on the set-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Needed and not there.
    pub(super) missing: Vec<Tool>,
    /// Whether apt is the package manager.
    pub(super) has_apt: bool,
    /// Whether this process may install packages.
    pub(super) is_root: bool,
    /// What apt would do for those of the missing tools that it was asked about.
    pub(super) effects: Vec<(Tool, Effect)>,
}

/// What apt would do to have the packages of a tool installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Only add packages.
    Adds,
    /// Remove or replace packages that are installed, a clause for each: `remove qemu-utils`.
    Changes(Vec<String>),
    /// Nothing: it finds no way.
    Refuses(String),
}

impl Facts {
    /// Looks at the machine. apt is not asked yet.
    pub(super) fn gather(needed: &[Tool], cache: &Cache) -> Self {
        let mut folders: Vec<PathBuf> = env::var_os("PATH")
            .map(|path| env::split_paths(&path).collect())
            .unwrap_or_default();
        folders.extend(cargo_home().map(|home| home.join("bin")));
        let has = |program: &str| folders.iter().any(|dir| is_program(&dir.join(program)));
        let seen = |evidence: &Evidence| match evidence {
            Evidence::Tool(tools::Tool::Qemu) => {
                // One that the user names is theirs to have.
                env::var_os("KTSTR_QEMU").is_some_and(|named| !named.is_empty())
                    || has(tools::Tool::Qemu.program())
                    || tools::find(cache, tools::Tool::Qemu)
                        .is_some_and(|qemu| qemu.try_out().is_ok())
            }
            Evidence::Tool(tools::Tool::Busybox) => {
                tools::static_busybox(cache, env::var_os("PATH").as_deref()).is_some()
            }
            Evidence::Program(name) => has(name),
            Evidence::Header(name) => Path::new("/usr/include").join(name).is_file(),
        };
        Self {
            missing: needed
                .iter()
                .copied()
                .filter(|tool| !tool.evidence().iter().all(seen))
                .collect(),
            has_apt: has("apt-get"),
            // The folder belongs to the effective user of the process, see proc_pid(5).
            is_root: fs::metadata("/proc/self").is_ok_and(|folder| folder.uid() == 0),
            effects: Vec::new(),
        }
    }
}

pub(super) fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_an_executable_file() {
        assert!(is_program(Path::new("/bin/sh")));
        assert!(!is_program(Path::new("/etc/passwd")));
        assert!(!is_program(Path::new("/etc")));
        assert!(!is_program(Path::new("/nowhere")));
    }
}
