//! `cargo ktstr runs` as a user calls it.

use std::path::Path;
use std::process::{Command, Output};

use ktstr_report::{AssertResult, Outcome, RunStore, SCHEMA_VERSION, Sidecar, Timings};
use ktstr_topology::Topology;
use serde_json::json;

fn runs(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cargo-ktstr"))
        .args(["ktstr", "runs"])
        .args(args)
        .env("KTSTR_RUNS_DIR", folder)
        .env("NO_COLOR", "1")
        .output()
        .expect("the command runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn write(store: &RunStore, run_id: &str, test: &str, outcome: Outcome) {
    let sidecar = json!({
        "schema": SCHEMA_VERSION,
        "run_id": run_id,
        "test": test,
        "outcome": outcome,
        "failure": null,
        "result": AssertResult::default(),
        "kernel": null,
        "engine": null,
        "topology": Topology::SINGLE,
        "memory_mib": 512,
        "started_unix_ms": 1,
        "timings": Timings::default(),
        "boot_retries": [],
        "console_tail": "",
        "output": "",
        "remarks": [],
    });
    let sidecar = Sidecar::from_json(sidecar.to_string().as_bytes()).expect("a sidecar");
    store.write(&sidecar).expect("written");
}

const RUNS: [&str; 3] = [
    "20260101T120000.000Z-1f3a-9c0b1234",
    "20260203T040506.789Z-1f3b-9c0b1235",
    "ci-4711",
];

fn three_runs() -> (tempfile::TempDir, RunStore) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = RunStore::new(folder.path());
    for (test, outcome) in [
        ("a", Outcome::Pass),
        ("b", Outcome::Pass),
        ("c", Outcome::Fail),
        ("d", Outcome::Inconclusive),
        ("e", Outcome::Skip),
    ] {
        write(&store, RUNS[0], test, outcome);
    }
    write(&store, RUNS[1], "a", Outcome::Pass);
    write(&store, RUNS[2], "a", Outcome::Pass);
    (folder, store)
}

#[test]
fn fault_e6_runs_are_listed_with_what_they_take_and_came_to() {
    let (folder, _store) = three_runs();
    let ended = runs(folder.path(), &["list"]);
    let listed = text(&ended.stdout);
    assert!(listed.lines().all(|line| line.len() <= 60), "{listed}");
    let rows = listed.lines().map(|line| {
        let cells = line.split("  ").map(str::trim);
        // What a file takes is the file system's affair.
        let cells = cells.map(|cell| if cell.ends_with(" kB") { "N kB" } else { cell });
        cells
            .filter(|cell| !cell.is_empty())
            .collect::<Vec<_>>()
            .join(" | ")
    });
    insta::assert_snapshot!(rows.collect::<Vec<_>>().join("\n"), @r"
    STARTED (UTC) | SIZE | PASS | FAIL | INC | SKIP
    2026-01-01 12:00:00.000 | N kB | 2 | 1 | 1 | 1
    2026-02-03 04:05:06.789 | N kB | 1 | 0 | 0 | 0
    ci-4711 | N kB | 1 | 0 | 0 | 0
    ");
    let said = text(&ended.stderr);
    assert!(
        said.starts_with("3 runs, ") && said.contains(" kB, in /"),
        "{said}"
    );

    let json = text(&runs(folder.path(), &["list", "--json"]).stdout);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let first = &json["runs"][0];
    assert_eq!(first["id"], RUNS[0]);
    assert_eq!(first["started_unix_s"], 1_767_268_800);
    assert_eq!((&first["passed"], &first["failed"]), (&json!(2), &json!(1)));
    assert!(first["size_bytes"].as_u64().is_some_and(|bytes| bytes > 0));

    let empty = folder.path().join("empty");
    let none = runs(&empty, &["list"]);
    assert!(none.status.success() && text(&none.stderr).starts_with("no run in /"));
}

#[test]
fn fault_e6_cleaning_keeps_the_newest_runs_and_those_that_go_on() {
    let (folder, store) = three_runs();
    let left = || {
        let ids = store.list_runs().expect("listed");
        ids.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let held = store
        .hold_run(&RUNS[0].parse().expect("an id"))
        .expect("held");
    let said = text(&runs(folder.path(), &["clean", "--keep", "1"]).stderr);
    assert!(
        said.contains(&format!("kept {}, which goes on", RUNS[0])),
        "{said}"
    );
    assert!(said.contains(&format!("removed {} (", RUNS[1])), "{said}");
    assert!(said.contains("2 runs left in /"), "{said}");
    assert_eq!(left(), [RUNS[0], RUNS[2]]);
    drop(held);
    assert!(
        runs(folder.path(), &["clean", "--keep", "1"])
            .status
            .success()
    );
    assert_eq!(left(), [RUNS[2]]);
    assert_eq!(runs(folder.path(), &["clean"]).status.code(), Some(64));
}
