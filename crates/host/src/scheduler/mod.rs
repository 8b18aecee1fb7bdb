//! The scheduler under test, as the host sees it: where its program comes from, and how it travels.

mod cargo_build;
mod watchdog;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ktstr_declaration::SchedulerOptions;
use ktstr_kernels::Cache;
use ktstr_kernels::tools;
use ktstr_wire::{SchedulerJob, SchedulerStart, WatchdogJob};

pub use cargo_build::{BuildError, CargoSettings};
pub(crate) use watchdog::job as watchdog_job;

use crate::initramfs::Include;

/// Where a scheduler comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchedulerSource {
    /// A program of this name, built with cargo in the workspace of the crate in this folder.
    Cargo {
        /// Name of the binary target.
        binary: String,
        /// Folder of the crate that declares the scheduler.
        manifest_dir: PathBuf,
    },
    /// A file.
    Path(PathBuf),
    /// Part of the kernel: shell commands that switch it on and off.
    Builtin {
        /// Switches it on.
        enable: String,
        /// Switches it off.
        disable: String,
        /// Ends with status 0 while it is on, and with another while it is off. Not needed for a scheduler of
        /// sched_ext, which the kernel names.
        is_enabled: Option<String>,
    },
}

/// The scheduler that a test runs under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerPlan {
    /// Name that the test gave it.
    pub name: String,
    /// Where it comes from.
    pub source: SchedulerSource,
    /// Its arguments.
    pub args: Vec<String>,
    /// Beginning of the name that the kernel has for it.
    pub ops: Option<String>,
    /// Releases that it is for, by their beginning (`6.16`, `7.3.4`); all if empty.
    pub kernels: Vec<String>,
    /// What the test says of it.
    pub options: SchedulerOptions,
}

/// The scheduler is not available.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// It could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// There is no such file.
    #[error("scheduler `{name}`: no file {}", path.display())]
    NoFile {
        /// The scheduler.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// The kernel can't load it.
    #[error(
        "kernel {release} has no sched_ext (CONFIG_SCHED_CLASS_EXT), so scheduler `{name}` can't be loaded; \
         choose another with --kernel (Debian's have it from 6.16 on)"
    )]
    NoSchedExt {
        /// The scheduler.
        name: String,
        /// `uname -r`.
        release: String,
    },
    /// Shell commands need a shell.
    #[error(
        "scheduler `{name}` is switched on by a shell command, and no static busybox was found to run it in the guest: \
         `cargo ktstr setup` fetches one where there is apt; elsewhere install one as /bin/busybox"
    )]
    NoShell {
        /// The scheduler.
        name: String,
    },
}

impl SchedulerPlan {
    /// Takes the program from this file, wherever it came from.
    pub fn use_program(&mut self, path: impl Into<PathBuf>) {
        if !matches!(self.source, SchedulerSource::Builtin { .. }) {
            self.source = SchedulerSource::Path(path.into());
        }
    }

    /// Whether it is one of sched_ext. One that is part of the kernel may be anything.
    pub(crate) fn needs_sched_ext(&self) -> bool {
        !matches!(self.source, SchedulerSource::Builtin { .. })
    }

    /// The file that the guest needs for it, built or found.
    pub(crate) fn program(
        &self,
        cache: &Cache,
        cargo: &CargoSettings,
        search_path: Option<&OsStr>,
    ) -> Result<PathBuf, SchedulerError> {
        match &self.source {
            SchedulerSource::Cargo {
                binary,
                manifest_dir,
            } => Ok(built(binary, manifest_dir, cargo)?),
            SchedulerSource::Path(path) if path.is_file() => Ok(path.clone()),
            SchedulerSource::Path(path) => Err(SchedulerError::NoFile {
                name: self.name.clone(),
                path: path.clone(),
            }),
            // In a machine that is itself a host, it is where an outer host has put it.
            SchedulerSource::Builtin { .. } => tools::static_busybox(cache, search_path)
                .or_else(|| Some(PathBuf::from(SchedulerJob::SHELL)).filter(|path| path.is_file()))
                .ok_or_else(|| SchedulerError::NoShell {
                    name: self.name.clone(),
                }),
        }
    }

    /// Where that file is to be in the guest.
    pub(crate) fn include(&self, program: PathBuf) -> Include {
        let guest = match &self.source {
            SchedulerSource::Builtin { .. } => SchedulerJob::SHELL.to_owned(),
            _ => in_guest(&program),
        };
        Include {
            host: program,
            guest,
        }
    }

    /// What the guest is told.
    pub(crate) fn job(&self, include: &Include, watchdog: Option<WatchdogJob>) -> SchedulerJob {
        let start = match &self.source {
            SchedulerSource::Builtin {
                enable,
                disable,
                is_enabled,
            } => SchedulerStart::Builtin {
                enable: enable.clone(),
                disable: disable.clone(),
                is_enabled: is_enabled.clone(),
            },
            _ => {
                let program = std::iter::once(include.guest.clone());
                SchedulerStart::Program(program.chain(self.args.iter().cloned()).collect())
            }
        };
        SchedulerJob {
            name: self.name.clone(),
            start,
            ops: self.ops.clone(),
            watchdog,
        }
    }

    /// Whether it is for the kernel of this release.
    pub(crate) fn is_for(&self, release: &str) -> bool {
        let starts = |kernel: &String| {
            release
                .strip_prefix(kernel.as_str())
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        self.kernels.is_empty() || self.kernels.iter().any(starts)
    }
}

/// Beside each other in a folder of their own, under their own names.
fn in_guest(program: &Path) -> String {
    let name = program.file_name().unwrap_or(program.as_os_str());
    format!("{}/{}", SchedulerJob::FOLDER, name.to_string_lossy())
}

/// Builds a program once for all tests of this process. Other processes wait for cargo's own lock, and
/// find nothing left to do.
fn built(binary: &str, manifest_dir: &Path, cargo: &CargoSettings) -> Result<PathBuf, BuildError> {
    static BUILT: Mutex<Option<HashMap<(String, PathBuf), PathBuf>>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.get_or_insert_default();
    let key = (binary.to_owned(), manifest_dir.to_owned());
    if let Some(path) = built.get(&key) {
        return Ok(path.clone());
    }
    let path = cargo_build::build(binary, manifest_dir, cargo)?;
    built.insert(key, path.clone());
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(kernels: &[&str]) -> SchedulerPlan {
        SchedulerPlan {
            name: "x".to_owned(),
            source: SchedulerSource::Path("/opt/scx_x".into()),
            args: vec!["--quick".to_owned()],
            ops: None,
            kernels: kernels.iter().map(|&kernel| kernel.to_owned()).collect(),
            options: SchedulerOptions::DEFAULT,
        }
    }

    #[test]
    fn a_release_is_matched_by_its_beginning_between_numbers() {
        assert!(plan(&[]).is_for("7.3.4+deb13-cloud-amd64"));
        assert!(plan(&["6.16", "7.3"]).is_for("7.3.4+deb13-cloud-amd64"));
        assert!(!plan(&["7.3.4"]).is_for("7.3.40"));
        assert!(!plan(&["6.16"]).is_for("7.3.4"));
    }

    #[test]
    fn the_program_keeps_its_name_in_the_guest() {
        let plan = plan(&[]);
        let include = plan.include("/opt/scx_x".into());
        assert_eq!(include.guest, "/ktstr/scheduler/scx_x");
        let SchedulerStart::Program(argv) = plan.job(&include, None).start else {
            panic!("a program");
        };
        assert_eq!(argv, ["/ktstr/scheduler/scx_x", "--quick"]);
    }

    #[test]
    fn a_file_that_is_missing_is_named() {
        let error = SchedulerPlan {
            source: SchedulerSource::Path("/no/such/scx".into()),
            ..plan(&[])
        }
        .program(
            &Cache::open(Path::new("/no/cache")).expect("a cache"),
            &CargoSettings::default(),
            None,
        )
        .expect_err("missing");
        assert_eq!(error.to_string(), "scheduler `x`: no file /no/such/scx");
    }
}
