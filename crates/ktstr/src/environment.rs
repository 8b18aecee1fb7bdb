//! What the environment of the process chooses. Read here and nowhere below.

use std::env;
use std::path::{Path, PathBuf};

use ktstr_host::{EngineOptions, Settings, TimingSlack};

/// Variables that the guest's process gets too; the last for the host that it may be itself.
const PASSED_ON: [&str; 3] = ["RUST_BACKTRACE", "RUST_LOG", "KTSTR_MONITOR"];

/// A variable has a value that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the environment variable {name} is `{value}`: {reason}")]
pub struct SettingsError {
    name: &'static str,
    value: String,
    reason: String,
}

/// Reads `KTSTR_KERNEL`, `KTSTR_ENGINE`, `KTSTR_CACHE_DIR`, `KTSTR_CPU_CAP`, `KTSTR_LOCK_DIR`, `KTSTR_MONITOR`,
/// `KTSTR_QEMU`, `KTSTR_APIC_ID_LLC_BIT` and what is passed on to the guest.
pub fn settings_from_environment() -> Result<Settings, SettingsError> {
    Ok(Settings {
        kernel: parsed("KTSTR_KERNEL")?,
        engine: parsed("KTSTR_ENGINE")?.unwrap_or_default(),
        engine_options: EngineOptions {
            apic_id_llc_bit: parsed("KTSTR_APIC_ID_LLC_BIT")?.unwrap_or_default(),
            ..EngineOptions::from_env()
        },
        cache: path("KTSTR_CACHE_DIR"),
        cpu_cap: parsed("KTSTR_CPU_CAP")?.unwrap_or_default(),
        lock_folder: path("KTSTR_LOCK_DIR"),
        monitor: parsed("KTSTR_MONITOR")?.unwrap_or_default(),
        library_path: env::var("LD_LIBRARY_PATH").ok(),
        outer_slack: TimingSlack::default(),
        environment: PASSED_ON
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), env::var(name).ok()?)))
            .collect(),
    })
}

/// The program that `KTSTR_SCHEDULER` names, in place of the one that a scheduler is built from.
pub(crate) fn scheduler() -> Option<PathBuf> {
    path("KTSTR_SCHEDULER")
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

/// Cargo's target folder. A test binary is three levels below it (`target/debug/deps/binary`), a program
/// two (`target/debug/program`).
pub(crate) fn target_folder() -> PathBuf {
    let own = env::current_exe().unwrap_or_default();
    let folder = own.parent().unwrap_or(Path::new("."));
    let levels = if folder.ends_with("deps") { 2 } else { 1 };
    folder
        .ancestors()
        .nth(levels)
        .unwrap_or(Path::new("."))
        .to_owned()
}
