//! The command as a user calls it, as far as no machine is booted.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use insta::assert_snapshot;
use ktstr_host::{Admission, Claim, CpuCap, CpuQueue, Ticket};
use tempfile::TempDir;

/// The command with an empty cache and nothing of the caller's own settings.
struct Cli {
    cache: TempDir,
}

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Cli {
    fn new() -> Self {
        Self {
            cache: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-ktstr"));
        for name in [
            "KTSTR_KERNEL",
            "KTSTR_ENGINE",
            "KTSTR_QEMU",
            "KTSTR_RUNS_DIR",
            "KTSTR_RUN_ID",
            "COLUMNS",
        ] {
            command.env_remove(name);
        }
        command
            .arg("ktstr")
            .args(args)
            .env("KTSTR_CACHE_DIR", self.cache.path())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.command(args)
            .output()
            .expect("the command starts")
            .into()
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }
}

/// Runs with wrong arguments and gives the message.
#[track_caller]
fn refused(args: &[&str]) -> String {
    let ran = Cli::new().run(args);
    assert_eq!(ran.code, Some(64), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
    ran.stderr
}

fn help(args: &[&str]) -> String {
    let ran = Cli::new().run(args);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    ran.stdout
}

#[test]
fn help_of_the_command() {
    assert_snapshot!(help(&["--help"]));
}

#[test]
fn help_of_test() {
    assert_snapshot!(help(&["test", "--help"]));
}

#[test]
fn help_of_setup() {
    assert_snapshot!(help(&["setup", "--help"]));
}

#[test]
fn help_of_kernel() {
    assert_snapshot!(help(&["kernel", "--help"]));
}

#[test]
fn help_of_kernel_get() {
    assert_snapshot!(help(&["kernel", "get", "--help"]));
}

#[test]
fn help_of_kernel_clean() {
    assert_snapshot!(help(&["kernel", "clean", "--help"]));
}

#[test]
fn help_of_runs_clean() {
    assert_snapshot!(help(&["runs", "clean", "--help"]));
}

#[test]
fn help_of_shell() {
    assert_snapshot!(help(&["shell", "--help"]));
}

#[test]
fn wrong_arguments_are_named_with_what_would_be_right() {
    assert!(refused(&[]).contains("Usage: cargo ktstr"));
    assert!(refused(&["tets"]).contains("'test'"));
    assert!(refused(&["kernel", "clean"]).contains("--corrupt-only"));
    assert!(refused(&["shell", "--memory-mib", "0"]).contains("0 is not in 1.."));
    assert!(refused(&["shell", "--exec", ""]).contains("a value is required"));
    assert!(refused(&["test", "--engine", "xen"]).contains("use auto, kvm, tcg or nested"));
}

#[test]
fn an_impossible_topology_is_explained() {
    assert!(
        refused(&["shell", "--topology", "2,3,1,1"])
            .contains("3 LLCs can't be shared evenly among 2 NUMA nodes")
    );
    assert!(refused(&["shell", "--topology", "1,1,0,1"]).contains("`cores` is 0"));
    assert!(refused(&["shell", "--topology", "4"]).contains("NODES,LLCS,CORES,THREADS"));
    assert!(refused(&["shell", "--topology", "1,1,9999,1"]).contains("more than 8192 CPUs"));
}

#[test]
fn impossible_numa_nodes_are_explained() {
    let refused = |nodes: &[&str]| {
        let shell = ["shell", "--exec", "true", "--topology", "2,2,1,1"];
        refused(&[&shell, nodes].concat())
    };
    assert!(
        refused(&["--node-distances", "10,30/20,10"])
            .contains("30 from NUMA node 0 to node 1, but 20 from node 1 to node 0")
    );
    assert!(refused(&["--node-distances", "10,x/20,10"]).contains("`x` is not a distance"));
    assert!(refused(&["--node-memory-mib", "512"]).contains("2 are needed"));
    assert!(
        refused(&["--node-memory-mib", "512,512", "--memory-mib", "512"])
            .contains("cannot be used with")
    );
    assert!(refused(&["--memory-only-node-mib", "1"]).contains("1 is not in 16.."));
}

#[test]
fn a_kernel_spec_of_no_known_form_is_refused_before_anything_is_done() {
    assert!(refused(&["kernel", "get", "what is this"]).contains("debian/SUITE"));
    assert!(refused(&["shell", "--kernel", "6.14.2", "--exec", "true"]).contains("kernel.org"));
    let ran = Cli::new()
        .command(&["shell", "--exec", "true"])
        .env("KTSTR_ENGINE", "xen")
        .output()
        .expect("it starts");
    let ran = Ran::from(ran);
    assert_eq!(ran.code, Some(64));
    assert!(
        ran.stderr
            .starts_with("error: the environment variable KTSTR_ENGINE is `xen`"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_key_that_is_not_in_the_cache_is_named() {
    let ran = Cli::new().run(&["kernel", "get", "debian-9.9.9-none"]);
    assert_eq!(ran.code, Some(64));
    assert!(
        ran.stderr
            .contains("`debian-9.9.9-none` is neither a key in the kernel cache nor a file"),
        "{}",
        ran.stderr
    );
    let ran = Cli::new().run(&["kernel", "clean", "debian-9.9.9-none"]);
    assert_eq!(ran.code, Some(64));
    assert!(
        ran.stderr
            .contains("no kernel `debian-9.9.9-none`: it is empty"),
        "{}",
        ran.stderr
    );
}

#[test]
fn fault_f8_a_file_that_is_no_kernel_is_the_users_fault_and_named() {
    let cli = Cli::new();
    let file = cli.cache.path().join("notes.txt");
    fs::write(&file, "no kernel\n").expect("written");
    let ran = cli.run(&["kernel", "get", file.to_str().expect("a path")]);
    assert_eq!(ran.code, Some(64));
    assert!(ran.stderr.contains("notes.txt"), "{}", ran.stderr);
}

#[test]
fn an_empty_cache_lists_as_nothing() {
    let ran = Cli::new().run(&["kernel", "list"]);
    assert_eq!((ran.code, &*ran.stdout), (Some(0), ""));
    assert!(
        ran.stderr.contains("cargo ktstr kernel get debian"),
        "{}",
        ran.stderr
    );
    let ran = Cli::new().run(&["kernel", "list", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(json["kernels"].as_array().map(Vec::len), Some(0));
}

#[test]
fn fault_e9_kernels_given_as_files_are_cleaned_and_fetched_ones_stay() {
    let cli = Cli::new();
    let entry = |key: &str, origin: serde_json::Value| {
        let folder = cli.cache.path().join("kernels").join(key);
        fs::create_dir_all(&folder).expect("made");
        let metadata = serde_json::json!({
            "version": 1, "release": "9", "source": "s", "origin": origin, "stored_unix_s": 1, "btf": null,
            "pvh_entry": null, "has_modules": false, "files": {},
        });
        fs::write(folder.join("metadata.json"), metadata.to_string()).expect("written");
    };
    entry(
        "mine",
        serde_json::json!({ "file": { "path": "/x/bzImage" } }),
    );
    let debian = serde_json::json!({ "suite": "s", "role": "r", "version": "9", "flavour": "f" });
    entry("fetched", serde_json::json!({ "debian": debian }));
    let cleaned = cli.run(&["kernel", "clean", "--given"]);
    assert_eq!(cleaned.code, Some(0), "{}", cleaned.stderr);
    assert!(
        cleaned.stderr.contains("removed mine (given as a file)"),
        "{}",
        cleaned.stderr
    );
    let left = fs::read_dir(cli.cache.path().join("kernels")).expect("listed");
    let left: Vec<_> = left.map(|entry| entry.expect("read").file_name()).collect();
    assert_eq!(left, ["fetched"]);
}

#[test]
fn a_damaged_kernel_is_listed_and_cleaned() {
    let cli = Cli::new();
    for key in ["one", "two"] {
        fs::create_dir_all(cli.cache.path().join("kernels").join(key)).expect("made");
    }
    let list = cli.run(&["kernel", "list"]);
    assert_snapshot!(list.stdout, @r"
    KEY  RELEASE  SIZE  STORED  STATE    SOURCE
    one  -        -     -       damaged  metadata.json is missing
    two  -        -     -       damaged  metadata.json is missing
    ");
    let cleaned = cli.run(&["kernel", "clean", "one", "three"]);
    assert_eq!(cleaned.code, Some(64));
    assert!(
        cleaned
            .stderr
            .contains("no kernel `three`; it has: one, two"),
        "{}",
        cleaned.stderr
    );
    assert!(
        cli.cache.path().join("kernels/one").exists(),
        "nothing is removed when a key is wrong"
    );

    let cleaned = cli.run(&["kernel", "clean", "one"]);
    assert_eq!(cleaned.code, Some(0), "{}", cleaned.stderr);
    assert!(
        cleaned.stderr.contains("removed one (as asked)"),
        "{}",
        cleaned.stderr
    );
    let cleaned = cli.run(&["kernel", "clean", "--corrupt-only"]);
    assert!(
        cleaned
            .stderr
            .contains("removed two (damaged: metadata.json is missing)"),
        "{}",
        cleaned.stderr
    );
    assert!(
        cleaned.stderr.contains("0 kernels left"),
        "{}",
        cleaned.stderr
    );
    assert_eq!(
        fs::read_dir(cli.cache.path().join("kernels"))
            .expect("a folder")
            .count(),
        0
    );
}

#[test]
fn an_include_that_is_missing_is_named_before_anything_starts() {
    let cli = Cli::new();
    let ran = cli.run(&[
        "shell",
        "--kernel",
        "debian",
        "--include",
        "no/such/file",
        "--exec",
        "true",
    ]);
    assert_eq!(ran.code, Some(64));
    assert_eq!(
        ran.stderr,
        "error: can't include no/such/file\n  1: No such file or directory (os error 2)\n"
    );
    assert_eq!(
        fs::read_dir(cli.cache.path()).expect("a folder").count(),
        0,
        "no kernel was looked for"
    );
}

#[test]
fn a_shell_for_a_person_needs_a_terminal() {
    let message = refused(&["shell", "--kernel", "debian"]);
    assert!(message.contains("--exec CMD"), "{message}");
}

#[test]
fn fault_a2_the_queue_shows_who_holds_host_cpus_and_memory() {
    let folder = tempfile::tempdir().unwrap();
    let shown = |args: &[&str]| -> Ran {
        let mut command = Cli::new().command(args);
        let command = command.env("KTSTR_LOCK_DIR", folder.path().join("line"));
        command.output().unwrap().into()
    };
    let none = shown(&["queue"]);
    assert_eq!((none.code, none.stdout.as_str()), (Some(0), ""));
    assert_eq!(none.stderr, "no machine runs, and no test waits\n");

    let queue = CpuQueue::open(Some(&folder.path().join("line")), CpuCap::Count(4));
    let claim = Claim::new("suite::test", "kvm", 3).with_memory(64, false);
    let queue = queue.unwrap().unwrap();
    let mut ticket = Ticket::take(&queue, claim, false).unwrap();
    let Admission::Granted(permit) = ticket.wait().unwrap() else {
        panic!("nobody else is in the queue");
    };
    drop(ticket);
    let rows = shown(&["queue"]).stdout;
    let row: Vec<&str> = rows.lines().nth(1).unwrap().split_whitespace().collect();
    let pid = std::process::id().to_string();
    assert_eq!(row[..4], [&pid, "running", "3", "64"]);
    assert_eq!(row[row.len() - 2..], ["kvm", "suite::test"]);
    let json: serde_json::Value =
        serde_json::from_str(&shown(&["queue", "--json"]).stdout).unwrap();
    assert_eq!(json["queue"][0]["pid"], std::process::id());
    assert_eq!(json["queue"][0]["memory_mib"], 64);
    drop(permit);
    // The name that it had before.
    assert_eq!(shown(&["locks"]).stdout, "");
}

#[test]
fn completions_are_there_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = help(&["completions", shell]);
        assert!(script.contains("corrupt-only"), "{shell}");
    }
}

#[test]
fn output_into_a_closed_pipe_is_no_error() {
    let mut command = Cli::new().command(&["completions", "bash"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    let ran = Ran::from(child.wait_with_output().expect("it ends"));
    assert_eq!((ran.code, &*ran.stderr), (Some(0), ""));
}

/// A folder with the named programs only, as the value of `PATH`.
fn path_with(programs: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for program in programs {
        let found = std::env::split_paths(&std::env::var_os("PATH").expect("PATH"))
            .map(|folder| folder.join(program))
            .find(|file| file.exists());
        symlink(
            found.expect("the program is installed"),
            folder.path().join(program),
        )
        .expect("linked");
    }
    folder
}

#[test]
fn doctor_says_what_is_missing_and_how_to_get_it() {
    let cli = Cli::new();
    let doctor = |programs: &[&str]| {
        let path = path_with(programs);
        let ran = cli
            .command(&["doctor"])
            .env("PATH", path.path())
            .env_remove("CARGO")
            .output()
            .expect("it starts");
        let ran = Ran::from(ran);
        assert_eq!(ran.code, Some(6), "{}", ran.stderr);
        ran.stdout
    };
    let expect = |printed: &str, lines: &[&str]| {
        for line in lines {
            assert!(printed.contains(line), "{line} is not in\n{printed}");
        }
    };
    let without_apt = [
        "`qemu-system-x86_64` was not found",
        "→ install the system emulator for x86-64 with this system's package manager",
        "→ cargo install cargo-nextest --locked",
        "tests can't run here",
    ];
    expect(&doctor(&["cargo"]), &without_apt);
    let with_apt = ["→ `cargo ktstr setup` fetches qemu-system-x86 into the cache"];
    expect(&doctor(&["cargo", "apt-get"]), &with_apt);
}

/// A program that says it is this QEMU, and ends.
fn fake_qemu(file: &Path, version: &str) {
    fs::create_dir_all(file.parent().expect("a folder")).expect("made");
    let script = format!("#!/bin/sh\necho QEMU emulator version {version}\n");
    fs::write(file, script).expect("written");
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).expect("executable");
}

#[test]
fn fault_f9_qemu_is_looked_for_in_the_variable_then_on_path_then_in_the_cache() {
    let cli = Cli::new();
    let path = path_with(&["cargo"]);
    let doctor = |qemu: Option<&Path>| {
        let mut command = cli.command(&["doctor", "--json"]);
        command.env("PATH", path.path()).env_remove("CARGO");
        command.envs(qemu.map(|qemu| ("KTSTR_QEMU", qemu)));
        let ran = Ran::from(command.output().expect("it starts"));
        let json: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
        let checks = json["checks"].as_array().expect("a list").clone();
        let check = checks.into_iter().find(|check| check["check"] == "QEMU");
        check.expect("QEMU is checked")["found"]
            .as_str()
            .expect("text")
            .to_owned()
    };
    let entry = cli.cache.path().join("tools/qemu-1");
    fake_qemu(&entry.join("qemu-system-x86_64"), "9.0.1");
    let metadata = r#"{ "version": 1, "tool": "qemu", "program": "qemu-system-x86_64",
        "packages": [{ "name": "qemu-system-x86", "version": "1:9.0.1-1" }], "stored_unix_s": 1 }"#;
    fs::write(entry.join("tool.json"), metadata).expect("written");
    let fetched = doctor(None);
    fake_qemu(&path.path().join("qemu-system-x86_64"), "9.0.2");
    let on_path = doctor(None);
    let named_file = path.path().join("named/qemu");
    fake_qemu(&named_file, "9.0.3");
    let named = doctor(Some(&named_file));
    // One that is too old is no reason not to take one that isn't.
    fake_qemu(&path.path().join("qemu-system-x86_64"), "5.2.0");
    let beside_an_old_one = doctor(None);
    assert_snapshot!([fetched, on_path, named, beside_an_old_one].join("\n"), @r"
    QEMU 9.0.1 of the cache, one emulation thread, from qemu-system-x86 1:9.0.1-1
    QEMU 9.0.2 on PATH, one emulation thread
    QEMU 9.0.3 of KTSTR_QEMU, one emulation thread
    QEMU 9.0.1 of the cache, one emulation thread, from qemu-system-x86 1:9.0.1-1
    ");
}

#[test]
fn fault_f9_setup_without_apt_says_what_to_install() {
    let cli = Cli::new();
    let path = path_with(&["cargo"]);
    let ran = cli
        .command(&["setup"])
        .env("PATH", path.path())
        .env_remove("CARGO")
        .output()
        .expect("it starts");
    let ran = Ran::from(ran);
    assert_eq!(ran.code, Some(6), "{}", ran.stderr);
    assert!(
        ran.stderr
            .contains("install the system emulator for x86-64 with this system's package manager"),
        "{}",
        ran.stderr
    );
    assert!(!cli.cache.path().join("tools").exists());
}

#[test]
fn setup_does_not_fetch_over_a_choice_of_the_users() {
    let cli = Cli::new();
    let ran = cli
        .command(&["setup"])
        .env("KTSTR_QEMU", "/no/such/qemu")
        .output()
        .expect("it starts");
    let ran = Ran::from(ran);
    assert_eq!(ran.code, Some(6), "{}", ran.stderr);
    let words = "qemu-system-x86_64: `/no/such/qemu` was not found; set KTSTR_QEMU to a working";
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
}

#[test]
fn doctor_prints_the_same_as_json() {
    let cli = Cli::new();
    let path = path_with(&[]);
    let ran = cli
        .command(&["doctor", "--json"])
        .env("PATH", path.path())
        .env_remove("CARGO")
        .output()
        .expect("it starts");
    let ran = Ran::from(ran);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(
        (ran.code, &json["tests_can_run"]),
        (Some(6), &serde_json::Value::Bool(false))
    );
    let checks = json["checks"].as_array().expect("a list");
    let state = |name: &str| {
        let check = checks.iter().find(|check| check["check"] == name);
        check.map(|check| check["state"].as_str().expect("text").to_owned())
    };
    assert_eq!(state("QEMU").as_deref(), Some("missing"));
    assert_eq!(state("cargo-nextest").as_deref(), Some("missing"));
    assert_eq!(state("Debian kernels").as_deref(), Some("note"));
    assert_eq!(state("cache").as_deref(), Some("fine"));
    assert_eq!(
        state("kernel").as_deref(),
        Some("missing"),
        "none there, and none can be fetched"
    );
}

/// A program that stands in for cargo: it knows `metadata` as the real one, and of `nextest` what `script` says.
fn cargo_stand_in(folder: &Path, script: &str) -> std::path::PathBuf {
    let file = folder.join("cargo");
    let real = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let text =
        format!("#!/bin/sh\nif [ \"$1\" = metadata ]; then exec '{real}' \"$@\"; fi\n{script}\n");
    fs::write(&file, text).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("made executable");
    file
}

#[test]
fn without_nextest_the_way_to_it_is_told() {
    let cli = Cli::new();
    let cargo = cargo_stand_in(cli.cache.path(), "exit 101");
    let ran = Ran::from(
        cli.command(&["test"])
            .env("CARGO", cargo)
            .output()
            .expect("it starts"),
    );
    assert_eq!(ran.code, Some(6));
    assert!(
        ran.stderr.contains("cargo install cargo-nextest --locked"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_package_without_our_tests_is_told_so() {
    let cli = Cli::new();
    let cargo = cargo_stand_in(cli.cache.path(), "echo cargo-nextest 0.9.0");
    let package = cli.cache.path().join("package");
    fs::create_dir_all(package.join("src")).expect("made");
    fs::write(package.join("src/lib.rs"), "").expect("written");
    let manifest =
        "[package]\nname = \"plain\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    fs::write(package.join("Cargo.toml"), manifest).expect("written");
    let ran = Ran::from(
        cli.command(&["test"])
            .env("CARGO", cargo)
            .current_dir(&package)
            .output()
            .expect("it starts"),
    );
    assert_eq!(ran.code, Some(4));
    assert!(
        ran.stderr
            .contains("no package here depends on `ktstr` itself (looked at: plain)"),
        "{}",
        ran.stderr
    );
}

#[test]
fn outside_of_a_workspace_cargo_says_so() {
    let cli = Cli::new();
    let cargo = cargo_stand_in(cli.cache.path(), "echo cargo-nextest 0.9.0");
    let ran = cli
        .command(&["test"])
        .env("CARGO", cargo)
        .current_dir("/")
        .output()
        .expect("it starts");
    let ran = Ran::from(ran);
    assert_eq!(ran.code, Some(64));
    assert!(
        ran.stderr.contains("could not find `Cargo.toml`"),
        "{}",
        ran.stderr
    );
}
