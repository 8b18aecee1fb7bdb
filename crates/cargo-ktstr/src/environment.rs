//! What the environment of the command chooses, beyond what [`ktstr::settings_from_environment`] reads for tests and
//! machines. Read here only.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use ktstr_kernels::{Cache, CacheError};
use ktstr_machine::EngineOptions;
use ktstr_report::{Palette, RUNS_DIR_ENV, RunStore};

use crate::files;

/// By this a program that is instrumented for coverage learns where to leave its counts.
const COVERAGE: &str = "LLVM_PROFILE_FILE";

/// The kernel cache.
pub(crate) fn cache() -> Result<Cache, CacheError> {
    Cache::open_default(env::var_os)
}

/// The QEMU that the user names, whatever the other variables say.
pub(crate) fn engine_options() -> EngineOptions {
    EngineOptions {
        qemu: env::var_os("KTSTR_QEMU")
            .filter(|path| !path.is_empty())
            .map(PathBuf::from),
        ..EngineOptions::default()
    }
}

/// The cargo that called this command, else the one on `PATH`.
pub(crate) fn cargo() -> PathBuf {
    env::var_os("CARGO")
        .filter(|path| !path.is_empty())
        .map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// The program `name` in the folders of `PATH`.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    files::on_path(name, search_path().as_deref())
}

/// The folders in which programs are looked for.
pub(crate) fn search_path() -> Option<OsString> {
    env::var_os("PATH")
}

/// The kind of the terminal.
pub(crate) fn terminal_kind() -> Option<String> {
    env::var("TERM").ok()
}

/// How many columns the user wants.
pub(crate) fn columns() -> Option<usize> {
    let columns = env::var("COLUMNS").ok()?.parse().ok()?;
    (columns > 0).then_some(columns)
}

/// The colours of standard output.
pub(crate) fn palette() -> Palette {
    Palette::for_stream(
        io::stdout().is_terminal(),
        env::var_os("NO_COLOR").as_deref(),
        env::var_os("CLICOLOR_FORCE").as_deref(),
    )
}

/// Whether the tests that are run are instrumented for coverage.
pub(crate) fn counts_coverage() -> bool {
    env::var_os(COVERAGE).is_some()
}

/// Whether the user names the folder of runs.
pub(crate) fn names_store() -> bool {
    env::var_os(RUNS_DIR_ENV).is_some_and(|folder| !folder.is_empty())
}

/// Where runs are kept: in the folder that the user names, else with what cargo builds in `target`.
pub(crate) fn store(target: &Path) -> RunStore {
    RunStore::choose(env::var_os(RUNS_DIR_ENV).as_deref(), target)
}
