//! The QEMU that the `tcg` engine takes, for boots in which the engine has no part.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use ktstr_kernels::Cache;
use ktstr_kernels::tools::{self, Tool};
use ktstr_machine::EngineOptions;

/// Where packages that are installed have QEMU's firmware.
const FIRMWARE_FOLDERS: [&str; 2] = ["/usr/share/qemu", "/usr/share/seabios"];

/// A QEMU, and what belongs to it.
pub(crate) struct Qemu {
    /// What is started.
    pub(crate) program: PathBuf,
    /// The ELF file: the same, unless the program is a script that starts it.
    pub(crate) binary: PathBuf,
    /// Where its firmware is.
    pub(crate) firmware_folders: Vec<PathBuf>,
    /// Where those of its libraries are that are not installed.
    pub(crate) library_folders: Vec<PathBuf>,
}

/// The options of the `tcg` engine, with the QEMU that was fetched.
pub(crate) fn engine_options(cache: &Cache) -> EngineOptions {
    let mut options = EngineOptions {
        qemu: named(),
        ..EngineOptions::default()
    };
    ktstr_host::look_in_cache(&mut options, cache);
    options
}

/// The one that the user names.
fn named() -> Option<PathBuf> {
    let named = env::var_os("KTSTR_QEMU").filter(|path| !path.is_empty());
    named.map(PathBuf::from)
}

impl Qemu {
    /// Looks where the engine looks.
    pub(crate) fn find(cache: &Cache) -> Result<Self> {
        let name = Tool::Qemu.program();
        let on_path = || {
            let path = env::var_os("PATH").unwrap_or_default();
            let mut places = env::split_paths(&path).map(|folder| folder.join(name));
            places.find(|place| place.is_file())
        };
        if let Some(program) = named().or_else(on_path) {
            return Ok(Self {
                binary: program.clone(),
                program,
                firmware_folders: FIRMWARE_FOLDERS.map(PathBuf::from).to_vec(),
                library_folders: Vec::new(),
            });
        }
        let fetched = tools::find(cache, Tool::Qemu)
            .context("there is no QEMU on PATH or in the cache: run `cargo ktstr setup`")?;
        let below = |path: &str| fetched.dir().join(path.trim_start_matches('/'));
        Ok(Self {
            program: fetched.program(),
            binary: below("usr/bin").join(name),
            firmware_folders: FIRMWARE_FOLDERS.map(below).to_vec(),
            library_folders: fetched.library_folders(),
        })
    }

    /// A file of its firmware.
    pub(crate) fn firmware(&self, name: &str) -> Result<PathBuf> {
        let mut places = self.firmware_folders.iter().map(|folder| folder.join(name));
        places
            .find(|path| path.is_file())
            .with_context(|| format!("QEMU's firmware file {name} was not found"))
    }
}
