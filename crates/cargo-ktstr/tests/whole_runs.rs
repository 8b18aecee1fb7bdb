//! `cargo ktstr test` over a small workspace whose tests leave results as those with machines do. Nextest is the real
//! one, and so are kernel and engine; but no machine is booted.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ktstr_report::{AssertResult, SCHEMA_VERSION, Timings};
use ktstr_topology::Topology;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::json;
use tempfile::TempDir;

/// How long anything here may take on a busy host.
const LIMIT: Duration = Duration::from_secs(60);

const WORKSPACE: &str = "\
[workspace]
members = [\"ktstr\", \"suite\", \"optional\"]
resolver = \"3\"
";

const LIBRARY: &str = r#"//! Stands in for the library: leaves a result where that would.
use std::{env, fs, path::PathBuf};

pub fn leave(test: &str, outcome: &str) {
    leave_in("KTSTR_RUNS_DIR", test, outcome);
}

pub fn leave_in(store: &str, test: &str, outcome: &str) {
    let run_id = env::var("KTSTR_RUN_ID").unwrap();
    let folder = PathBuf::from(env::var_os(store).unwrap()).join(&run_id);
    fs::create_dir_all(&folder).unwrap();
    let sidecar = include_str!("../sidecar.json");
    let sidecar = sidecar.replace("RUN", &run_id).replace("TEST", test).replace("OUTCOME", outcome);
    fs::write(folder.join(format!("{}.json", test.replace("::", "."))), sidecar).unwrap();
}
"#;

/// A result with words in place of the run, the test and the outcome.
fn sidecar() -> String {
    let sidecar = json!({
        "schema": SCHEMA_VERSION, "run_id": "RUN", "test": "TEST", "outcome": "OUTCOME", "failure": null,
        "result": AssertResult::default(), "kernel": null, "engine": null, "topology": Topology::SINGLE,
        "memory_mib": 512, "started_unix_ms": 1, "timings": Timings::default(),
        "engine_memory_bytes": null, "boot_retries": [], "console_tail": "", "output": "", "remarks": ["can't write to STORE: No space left on device (os error 28)"],
    });
    sidecar.to_string()
}

const SUITE: &str = r#"
use std::{env, fs, thread, time::Duration};

#[test]
fn passes() {
    ktstr::leave("eevdf::passes", "pass");
}

#[test]
fn is_inconclusive() {
    ktstr::leave("eevdf::is_inconclusive", "inconclusive");
    panic!("not green");
}

#[test]
fn is_skipped() {
    ktstr::leave("eevdf::is_skipped", "skip");
}

#[test]
fn finds_no_room() {
    ktstr::leave_in("KTSTR_UNSTORED_DIR", "eevdf::finds_no_room", "pass");
}

#[test]
fn ordinary_passes() {}

#[test]
fn ordinary_fails() {
    panic!("the sum is wrong");
}

#[test]
fn crashes() {
    std::process::abort();
}

#[test]
fn tells_its_paths() {
    ktstr::leave("eevdf::tells_its_paths", "pass");
    let names = ["KTSTR_LOCK_DIR", "KTSTR_SCHEDULER", "KTSTR_RUNS_DIR"];
    let paths: Vec<String> = names.iter().map(|name| env::var(name).unwrap()).collect();
    fs::write(env::var("SUITE_TOLD").unwrap(), paths.join("\n")).unwrap();
}

#[test]
#[ignore]
fn waits() {
    fs::write(env::var("SUITE_TOLD").unwrap(), "").unwrap();
    thread::sleep(Duration::from_secs(600));
}
"#;

struct Workspace(TempDir);

struct Ran {
    code: Option<i32>,
    text: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = [output.stdout, output.stderr].concat();
        Self {
            code: output.status.code(),
            text: String::from_utf8_lossy(&text).into_owned(),
        }
    }
}

impl Workspace {
    fn new() -> Self {
        let workspace = Self(tempfile::tempdir().expect("a folder"));
        let package = |name: &str, rest: &str| {
            format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n{rest}")
        };
        let dependency = "[dependencies]\nktstr = { path = \"../ktstr\" }\n";
        let optional = "[features]\nvm = [\"dep:ktstr\"]\n\
                        [dependencies]\nktstr = { path = \"../ktstr\", optional = true }\n";
        let in_vm = "#[cfg(feature = \"vm\")]\n#[test]\nfn passes() { ktstr::leave(\"vm::passes\", \"pass\"); }\n";
        for (path, text) in [
            ("Cargo.toml", WORKSPACE),
            ("ktstr/Cargo.toml", &package("ktstr", "")),
            ("ktstr/src/lib.rs", LIBRARY),
            ("ktstr/sidecar.json", &sidecar()),
            ("suite/Cargo.toml", &package("suite", dependency)),
            ("suite/src/lib.rs", ""),
            ("suite/tests/eevdf.rs", SUITE),
            ("optional/Cargo.toml", &package("optional", optional)),
            ("optional/src/lib.rs", ""),
            ("optional/tests/vm.rs", in_vm),
            ("bin/scx_mine", ""),
        ] {
            let path = workspace.path(path);
            fs::create_dir_all(path.parent().expect("it has a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
        workspace
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-ktstr"));
        // What cargo and nextest told this test is not meant for the other workspace.
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            let of_this_run = [
                "CARGO_",
                "NEXTEST",
                "RUSTFLAGS",
                "KTSTR_RUN",
                "KTSTR_UNSTORED",
            ];
            if of_this_run.iter().any(|start| text.starts_with(start)) && text != "CARGO_HOME" {
                command.env_remove(&name);
            }
        }
        command
            .args(["ktstr", "test", "--engine", "tcg"])
            .args(args.split_whitespace())
            .current_dir(self.0.path())
            .env("NO_COLOR", "1")
            .env("CARGO_TERM_COLOR", "never")
            .env("SUITE_TOLD", self.path("told"))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &str) -> Ran {
        self.command(args).output().expect("it starts").into()
    }

    /// Runs and gives what was printed.
    #[track_caller]
    fn exits(&self, code: i32, args: &str) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(code), "{args}\n{}", ran.text);
        ran.text
    }
}

#[track_caller]
fn has(text: &str, part: &str) {
    assert!(text.contains(part), "{part} is not in\n{text}");
}

#[test]
fn fault_f5_f6_what_ran_is_told_with_nextests_own_options() {
    let workspace = Workspace::new();

    let built = workspace.exits(0, "-p suite --no-run");
    assert!(!built.contains("left no result"), "{built}");

    let passed = workspace.exits(0, "-p suite -E test(=passes)+test(=ordinary_passes)");
    has(
        &passed,
        "1 passed, 0 failed, 0 inconclusive, 0 skipped; 1 passed that are not",
    );
    // As it was written before.
    workspace.exits(0, "-p suite passes -- --no-fail-fast");

    let failed = workspace.exits(
        1,
        "-p suite --no-fail-fast is_inconclusive ordinary_fails crashes",
    );
    has(&failed, "INCONCLUSIVE  eevdf::is_inconclusive");
    has(
        &failed,
        "FAIL  suite::eevdf ordinary_fails: it failed and left no result (test failure",
    );
    has(
        &failed,
        "FAIL  suite::eevdf crashes: it failed and left no result (test abort: process aborted with signal 6",
    );
    has(&failed, "\n0 passed, 2 failed, 1 inconclusive, 0 skipped");

    let skipped = workspace.exits(7, "-p suite is_skipped");
    has(&skipped, "every test was skipped");
    workspace.exits(0, "-p suite is_skipped passes");
    has(
        &workspace.exits(1, "-p suite is_skipped passes --no-skips"),
        "--no-skips",
    );

    let ordinary = workspace.exits(4, "-p suite ordinary_passes");
    has(&ordinary, "none of them is a `#[ktstr_test]`");

    let unstored = workspace.exits(6, "-p suite finds_no_room passes");
    let reason = "not stored  1 result: can't write to STORE: No space left on device (os error 28); kept in ";
    has(&unstored, reason);
    has(&unstored, "\n2 passed, 0 failed");
    let (_, kept) = unstored.split_once("kept in ").expect("a folder");
    let kept = Path::new(kept.lines().next().unwrap_or_default());
    let file = kept.join("eevdf.finds_no_room.json");
    assert!(file.exists(), "{}", file.display());
    fs::remove_dir_all(kept.ancestors().nth(2).expect("the command's own")).expect("removed");

    // A record that the user's own configuration has elsewhere is read there.
    let config = "[profile.mine.junit]\npath = \"mine.xml\"\n";
    fs::create_dir(workspace.path(".config")).expect("made");
    fs::write(workspace.path(".config/nextest.toml"), config).expect("written");
    let recorded = workspace.exits(1, "-p suite --profile mine ordinary_fails");
    has(&recorded, "FAIL  suite::eevdf ordinary_fails: ");

    let optional = workspace.exits(0, "-p optional");
    has(&optional, "features: optional/vm");
    has(&optional, "PASS     vm::passes");
    let switched_on = workspace.exits(0, "-p optional --features vm");
    assert!(!switched_on.contains("features: "), "{switched_on}");
}

#[test]
fn fault_f1_paths_in_variables_start_where_the_command_was_run() {
    let workspace = Workspace::new();
    let ran = workspace
        .command("-p suite tells_its_paths")
        .env("KTSTR_LOCK_DIR", "my/lock")
        .env("KTSTR_SCHEDULER", "bin/scx_mine")
        .env("KTSTR_RUNS_DIR", "my/runs")
        .output();
    let ran = Ran::from(ran.expect("it starts"));
    assert_eq!(ran.code, Some(0), "{}", ran.text);
    let told = fs::read_to_string(workspace.path("told")).expect("the test told");
    let told: Vec<&Path> = told.lines().map(Path::new).collect();
    let expected = ["my/lock", "bin/scx_mine", "my/runs"].map(|path| workspace.path(path));
    assert_eq!(told, expected);

    let covered = workspace
        .command("-p suite passes --no-run")
        .env("LLVM_PROFILE_FILE", workspace.path("profile"))
        .output();
    let covered = Ran::from(covered.expect("it starts"));
    has(
        &covered.text,
        "coverage of what runs in a guest is not counted",
    );

    let missing = workspace
        .command("-p suite passes")
        .env("KTSTR_SCHEDULER", "bin/no")
        .output();
    let missing = Ran::from(missing.expect("it starts"));
    assert_eq!(missing.code, Some(64), "{}", missing.text);
    let tried = workspace.path("bin/no").display().to_string();
    has(
        &missing.text,
        &format!("there is no such file; tried {tried}"),
    );
}

#[test]
fn fault_f7_an_archive_leaves_its_results_where_the_command_is_run() {
    let workspace = Workspace::new();
    let archive = workspace.path("tests.tar.zst");
    let archive = archive.display();
    let mut cargo = cargo_of(&workspace.command(""));
    cargo.args(["nextest", "archive", "-p", "suite", "--archive-file"]);
    let made = Ran::from(cargo.arg(archive.to_string()).output().expect("it starts"));
    assert_eq!(made.code, Some(0), "{}", made.text);

    // The workspace has moved, and there is none where the command is run.
    let elsewhere = tempfile::tempdir().expect("a folder");
    let moved = workspace.path("moved");
    fs::create_dir_all(moved.join("suite")).expect("made");
    fs::write(moved.join("Cargo.toml"), "").expect("written");
    let moved = moved.display();
    let line = format!("--archive-file {archive} --workspace-remap {moved} passes");
    let mut command = workspace.command(&line);
    let ran = Ran::from(
        command
            .current_dir(elsewhere.path())
            .output()
            .expect("it starts"),
    );
    assert_eq!(ran.code, Some(0), "{}", ran.text);
    let runs = elsewhere.path().join("target/ktstr/runs");
    let run = fs::read_dir(runs).expect("a store").next().expect("a run");
    let result = run.expect("readable").path().join("eevdf.passes.json");
    assert!(result.exists(), "{}", result.display());
}

/// Cargo itself, in the folder and with the environment of `command`.
fn cargo_of(command: &Command) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => cargo.env(name, value),
            None => cargo.env_remove(name),
        };
    }
    cargo.current_dir(command.get_current_dir().expect("it has one"));
    cargo
}

#[test]
fn fault_f11_an_interrupted_run_exits_with_130_and_blames_no_test() {
    let workspace = Workspace::new();
    let child = workspace
        .command("-p suite --run-ignored only waits")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("it starts");
    let until = Instant::now() + LIMIT;
    while !workspace.path("told").exists() {
        assert!(Instant::now() < until, "the test did not start");
        thread::sleep(Duration::from_millis(20));
    }
    // As a terminal does: to all of the group.
    killpg(group_of(&child), Signal::SIGINT).expect("sent");
    let ran = Ran::from(child.wait_with_output().expect("it ends"));
    assert_eq!(ran.code, Some(130), "{}", ran.text);
    has(&ran.text, "interrupted by SIGINT");
    assert!(!ran.text.contains("left no result"), "{}", ran.text);
}

fn group_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a process id"))
}
