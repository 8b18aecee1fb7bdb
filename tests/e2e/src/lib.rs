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
    let runs = tempfile::tempdir().expect("a folder");
    let ended = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--include-ignored", "--exact", "--nocapture", name])
        .env("KTSTR_ENGINE", engine)
        .env("KTSTR_RUNS_DIR", runs.path())
        .env_remove("KTSTR_RUN_ID")
        .output()
        .expect("this binary runs");
    let text = String::from_utf8_lossy(&ended.stdout);
    let store = RunStore::new(runs.path());
    let run = store.latest_run().expect("a readable store");
    let mut run = run.unwrap_or_else(|| panic!("{name} has not run: {text}"));
    let sidecar = run.sidecars.pop().expect("a sidecar").sidecar;
    let ran_on = sidecar.engine.as_ref().map(|engine| engine.name.as_str());
    assert_eq!(ran_on, Some(engine), "{text}");
    assert_eq!(ended.status.success(), sidecar.outcome.is_green(), "{text}");
    sidecar
}
