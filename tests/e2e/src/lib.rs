//! End-to-end tests of ktstr itself. They are in `tests/`; this is what several of them need.

use std::process::Command;

use ktstr_report::{RunStore, Sidecar};

/// Runs the test `name` of the calling binary on the `nested` engine, and so on our own microVM.
///
/// # Panics
///
/// If it did not run there, or its exit status does not fit its outcome.
pub fn run_nested(name: &str) -> Sidecar {
    let sidecar = run_on("nested", name);
    let engine = sidecar.engine.as_ref().expect("an engine");
    let detail = &engine.detail;
    assert!(detail.starts_with("kvm (our own microVM"), "{detail}");
    sidecar
}

/// Runs the test `name` of the calling binary once more, on `engine`, whether it is ignored or not.
///
/// # Panics
///
/// If it did not run there, or its exit status does not fit its outcome.
pub fn run_on(engine: &str, name: &str) -> Sidecar {
    let Again { sidecar, text, .. } = run_again(name, &[("KTSTR_ENGINE", engine)]);
    let ran_on = sidecar.engine.as_ref().map(|engine| engine.name.as_str());
    assert_eq!(ran_on, Some(engine), "{text}");
    sidecar
}

/// What a test came to that was run once more.
#[derive(Debug)]
pub struct Again {
    /// Its result.
    pub sidecar: Sidecar,
    /// What it printed.
    pub text: String,
    /// Its failure dump, if it left one.
    pub dump: Option<Vec<u8>>,
}

/// Runs the test `name` of the calling binary once more, whether it is ignored or not.
///
/// # Panics
///
/// If it left no result, or its exit status does not fit its outcome.
pub fn run_again(name: &str, environment: &[(&str, &str)]) -> Again {
    let runs = tempfile::tempdir().expect("a folder");
    let ended = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--include-ignored", "--exact", "--nocapture", name])
        .envs(environment.iter().copied())
        .env("KTSTR_RUNS_DIR", runs.path())
        .env_remove("KTSTR_RUN_ID")
        .output()
        .expect("this binary runs");
    let text = String::from_utf8_lossy(&ended.stdout).into_owned();
    let store = RunStore::new(runs.path());
    let run = store.latest_run().expect("a readable store");
    let mut run = run.unwrap_or_else(|| panic!("{name} has not run: {text}"));
    assert!(run.unreadable.is_empty(), "{:?}", run.unreadable);
    let stored = run.sidecars.pop().expect("a sidecar");
    let sidecar = stored.sidecar;
    assert_eq!(ended.status.success(), sidecar.outcome.is_green(), "{text}");
    Again {
        sidecar,
        text,
        dump: std::fs::read(Sidecar::dump_path(&stored.path)).ok(),
    }
}
