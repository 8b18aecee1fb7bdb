//! What the environment of the process chooses. Tests and the guest read it here only, and hand it down as values.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use ktstr_host::{CargoSettings, PROGRESS_ENV, Settings};
use ktstr_kernels::{Cache, KernelSpec};
use ktstr_machine::EngineOptions;
use ktstr_report::{
    Palette, RUN_ID_ENV, RUNS_DIR_ENV, RunId, RunIdError, RunStore, UNSTORED_DIR_ENV,
};

use tracing_subscriber::filter::Targets;

use crate::folders::{Folders, working_folder, workspace_root};
use crate::settings_error::SettingsError;

/// Variables that the guest's process gets too; the last for the host that it may be itself.
const PASSED_ON: [&str; 2] = ["RUST_BACKTRACE", "KTSTR_MONITOR"];

/// Reads `KTSTR_KERNEL`, `KTSTR_ENGINE`, `KTSTR_CACHE_DIR`, `KTSTR_CPU_CAP`, `KTSTR_LOCK_DIR`, `KTSTR_MONITOR`,
/// `KTSTR_QEMU`, `KTSTR_APIC_ID_LLC_BIT` and what is passed on to the guest. A relative path starts at the working
/// folder of this process.
pub fn settings_from_environment() -> Result<Settings, SettingsError> {
    settings(&Folders::of_command())
}

/// The same for a test, which cargo and nextest run in another folder than the user's own.
pub(crate) fn settings_of_test() -> Result<Settings, SettingsError> {
    settings(&folders_of_test())
}

fn settings(folders: &Folders) -> Result<Settings, SettingsError> {
    let kernel = match parsed("KTSTR_KERNEL")? {
        Some(KernelSpec::Path(path)) => {
            Some(KernelSpec::Path(folders.existing("KTSTR_KERNEL", path)?))
        }
        other => other,
    };
    let qemu = match path("KTSTR_QEMU") {
        // A bare name is looked for on PATH.
        Some(path) if path.components().count() > 1 => Some(folders.existing("KTSTR_QEMU", path)?),
        other => other,
    };
    Ok(Settings {
        kernel,
        runs_in: parsed("KTSTR_ENGINE")?.unwrap_or_default(),
        engine_options: EngineOptions {
            apic_id_llc_bit: parsed("KTSTR_APIC_ID_LLC_BIT")?.unwrap_or_default(),
            qemu,
            ..EngineOptions::default()
        },
        cache: Cache::default_folder(env::var_os).map(|path| folders.own(&path)),
        cpu_cap: parsed("KTSTR_CPU_CAP")?.unwrap_or_default(),
        lock_folder: path("KTSTR_LOCK_DIR").map(|path| folders.own(&path)),
        monitor: parsed("KTSTR_MONITOR")?.unwrap_or_default(),
        cargo: cargo(),
        search_path: env::var_os("PATH"),
        library_path: env::var("LD_LIBRARY_PATH").ok(),
        outer: None,
        environment: PASSED_ON
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), env::var(name).ok()?)))
            .collect(),
    })
}

fn cargo() -> CargoSettings {
    // What cargo told this test of its own crate is not meant for another build.
    const OF_THIS_CRATE: [&str; 4] = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_",
        "CARGO_CRATE_",
    ];
    let is_of_this_crate = |name: &OsString| {
        let name = name.to_string_lossy();
        OF_THIS_CRATE.iter().any(|start| name.starts_with(start))
    };
    CargoSettings {
        program: path("CARGO"),
        profile: chosen("KTSTR_SCHEDULER_PROFILE"),
        hidden_variables: env::vars_os()
            .map(|(name, _)| name)
            .filter(is_of_this_crate)
            .collect(),
    }
}

const SCHEDULER: &str = "KTSTR_SCHEDULER";

/// The program that `KTSTR_SCHEDULER` names, in place of the one that a scheduler is built from. For a command: a
/// relative path starts at the working folder of this process.
pub fn scheduler_from_environment() -> Result<Option<PathBuf>, SettingsError> {
    scheduler(&Folders::of_command())
}

/// The same for a test.
pub(crate) fn scheduler_of_test() -> Result<Option<PathBuf>, SettingsError> {
    scheduler(&folders_of_test())
}

fn scheduler(folders: &Folders) -> Result<Option<PathBuf>, SettingsError> {
    let path = path(SCHEDULER);
    path.map(|path| folders.existing(SCHEDULER, path))
        .transpose()
}

/// What to say of a program that is instrumented for coverage, if this is one by its environment.
pub(crate) fn lost_coverage() -> Option<&'static str> {
    env::var_os("LLVM_PROFILE_FILE").map(|_| {
        "coverage (LLVM_PROFILE_FILE) of what runs in a guest is not counted, only that of the host's side"
    })
}

/// Where a test leaves its result.
pub(crate) fn run_store() -> RunStore {
    match path(RUNS_DIR_ENV) {
        Some(path) => RunStore::new(folders_of_test().own(&path)),
        None => RunStore::choose(None, &target_folder()),
    }
}

/// The run that a test belongs to.
pub(crate) fn run_id() -> Result<RunId, RunIdError> {
    RunId::of_this_process(env::var_os(RUN_ID_ENV).as_deref())
}

/// The colours of what a test prints.
pub(crate) fn palette() -> Palette {
    Palette::for_stream(
        std::io::stdout().is_terminal(),
        env::var_os("NO_COLOR").as_deref(),
        env::var_os("CLICOLOR_FORCE").as_deref(),
    )
}

/// Where a test leaves its result if there is no room where it belongs.
pub(crate) fn unstored() -> Option<RunStore> {
    path(UNSTORED_DIR_ENV).map(RunStore::new)
}

/// What the harness logs; nothing if no log is asked for.
pub(crate) fn log_filter() -> Result<Option<Targets>, SettingsError> {
    parsed("KTSTR_LOG")
}

/// Where the command that started this test wants to be told how far it is.
pub(crate) fn progress_socket() -> Option<PathBuf> {
    path(PROGRESS_ENV)
}

/// The value of a variable, if it has one.
pub(crate) fn chosen(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// For a test: the folder of the shell that started cargo, if it is in the workspace; the workspace's root; the folder
/// of the package.
fn folders_of_test() -> Folders {
    let shell = env::var_os("PWD").map(PathBuf::from);
    Folders::around(own_workspace(), &working_folder(), shell)
}

/// The root of the workspace whose test this is, by the word of nextest or of cargo.
fn own_workspace() -> PathBuf {
    if let Some(root) = env::var_os("NEXTEST_WORKSPACE_ROOT") {
        return root.into();
    }
    let package = env::var_os("CARGO_MANIFEST_DIR").map_or_else(working_folder, PathBuf::from);
    workspace_root(&package)
}

fn parsed<T: std::str::FromStr>(name: &'static str) -> Result<Option<T>, SettingsError>
where
    T::Err: std::fmt::Display,
{
    match env::var(name) {
        Ok(value) if !value.is_empty() => match value.parse() {
            Ok(parsed) => Ok(Some(parsed)),
            Err(error) => Err(SettingsError {
                name,
                reason: T::Err::to_string(&error),
                value,
            }),
        },
        _ => Ok(None),
    }
}

fn path(name: &str) -> Option<PathBuf> {
    env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// Cargo's target folder. A test binary is three levels below it (`target/debug/deps/binary`), a program two
/// (`target/debug/program`). That of an archive of nextest is gone after the run, so it is the workspace's then.
fn target_folder() -> PathBuf {
    let own = env::current_exe().unwrap_or_default();
    if is_in_archive(&own) {
        return own_workspace().join("target");
    }
    let folder = own.parent().unwrap_or(Path::new("."));
    let levels = if folder.ends_with("deps") { 2 } else { 1 };
    folder
        .ancestors()
        .nth(levels)
        .unwrap_or(Path::new("."))
        .to_owned()
}

/// Whether nextest has unpacked this program into a temporary folder, which has this beginning.
fn is_in_archive(program: &Path) -> bool {
    let is_temporary = |part: &OsStr| part.as_encoded_bytes().starts_with(b"nextest-archive-");
    program.iter().any(is_temporary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_f7_a_folder_that_nextest_removes_is_told_by_its_name() {
        let unpacked = "/tmp/nextest-archive-a1B2c3/target/debug/deps/eevdf-0123";
        assert!(is_in_archive(Path::new(unpacked)));
        assert!(!is_in_archive(Path::new("/w/target/debug/deps/eevdf-0123")));
    }
}
