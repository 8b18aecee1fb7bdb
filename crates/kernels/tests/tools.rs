//! Fetching QEMU and busybox, with this machine's real apt and mirror.
//!
//! What is downloaded is kept under the target folder, so that only the first run fetches it.

#![expect(
    clippy::unwrap_used,
    reason = "a test that can't go on is to stop there"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ktstr_kernels::tools::{self, Fetched, Tool, ToolError};
use ktstr_kernels::{Cache, Lines, Quiet};

fn shared_cache() -> Cache {
    Cache::open(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel-cache")).unwrap()
}

/// A tool that lies in the shared cache, fetched if it must be.
fn fetched(tool: Tool) -> Fetched {
    let cache = shared_cache();
    match tools::find(&cache, tool).filter(|fetched| fetched.try_out().is_ok()) {
        Some(fetched) => fetched,
        None => tools::fetch(&cache, tool, Path::new("/"), &Quiet).unwrap(),
    }
}

/// What dpkg says of all packages.
fn installed() -> Vec<u8> {
    fs::read("/var/lib/dpkg/status").unwrap()
}

#[test]
fn fault_f9_qemu_is_fetched_with_the_libraries_that_are_missing_and_nothing_is_installed() {
    let before = installed();
    let qemu = fetched(Tool::Qemu);
    assert_eq!(installed(), before, "the machine's packages were changed");
    assert_eq!(qemu.packages()[0].name, "qemu-system-x86");
    // Without anything of ours in its environment, as anybody would start it.
    let version = Command::new(qemu.program())
        .arg("--version")
        .env_clear()
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&version.stdout);
    assert!(printed.starts_with("QEMU emulator version "), "{version:?}");
    qemu.try_out().unwrap();
}

#[test]
fn fault_f9_a_busybox_is_fetched_that_runs_without_libraries() {
    let busybox = fetched(Tool::Busybox);
    assert!(tools::is_static(&busybox.program()).unwrap());
    let echoed = Command::new(busybox.program())
        .args(["echo", "here"])
        .output()
        .unwrap();
    assert_eq!(echoed.stdout, b"here\n");
}

#[test]
fn what_would_be_fetched_is_told_without_fetching_it() {
    let scratch = tempfile::tempdir().unwrap();
    let cache = Cache::open(scratch.path()).unwrap();
    let offer = tools::offer(&cache, Tool::Busybox, Path::new("/"), &Quiet).unwrap();
    assert_eq!(offer.packages[0].name, "busybox-static");
    assert!(offer.download_bytes > 100_000, "{offer:?}");
    assert!(tools::find(&cache, Tool::Busybox).is_none());
}

/// The folder of the entry that holds a copy of the fetched QEMU, in a cache of its own.
fn copied(scratch: &Path) -> (Cache, PathBuf) {
    let qemu = fetched(Tool::Qemu);
    let copy = scratch.join("tools").join(qemu.dir().file_name().unwrap());
    fs::create_dir(scratch.join("tools")).unwrap();
    let status = Command::new("cp")
        .args(["-a", "--reflink=auto"])
        .args([qemu.dir(), &copy])
        .status();
    assert!(status.unwrap().success());
    (Cache::open(scratch).unwrap(), copy)
}

#[test]
fn a_library_that_is_gone_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let (cache, copy) = copied(scratch.path());
    // Elsewhere it runs as well.
    let qemu = tools::find(&cache, Tool::Qemu).unwrap();
    qemu.try_out().unwrap();
    // One that is only there if the machine lacked it.
    let libraries = copy.join("usr/lib/x86_64-linux-gnu");
    let Some(slirp) = ["libslirp.so.0", "libfdt.so.1"]
        .into_iter()
        .find(|name| libraries.join(name).exists())
    else {
        return;
    };
    fs::remove_file(libraries.join(slirp)).unwrap();
    let error = qemu.try_out().unwrap_err();
    assert!(matches!(error, ToolError::DoesNotRun { .. }), "{error:?}");
    assert!(
        error.to_string().ends_with(&format!("it lacks {slirp}")),
        "{error}"
    );
}

/// Set in the processes that [`two_processes_fetch_one_tool_once`] starts of its own program.
const CHILD: &str = "KTSTR_TEST_FETCH_CHILD";

#[test]
fn two_processes_fetch_one_tool_once() {
    if let Some(root) = std::env::var_os(CHILD) {
        let cache = Cache::open(Path::new(&root)).unwrap();
        let lines = Lines::default();
        let fetched = tools::fetch(&cache, Tool::Busybox, Path::new("/"), &lines).unwrap();
        println!("RESULT {}", fetched.program().display());
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args([
                "two_processes_fetch_one_tool_once",
                "--exact",
                "--nocapture",
            ])
            .env(CHILD, scratch.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let outputs = [start(), start()].map(|child| child.wait_with_output().unwrap());
    let mut told = String::new();
    for output in outputs {
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(stdout.contains("RESULT "), "{output:?}");
        told.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(
        told.matches("downloading busybox-static 1").count(),
        1,
        "{told}"
    );
}

#[test]
fn a_machine_whose_sources_are_all_of_others_is_told_so() {
    let scratch = tempfile::tempdir().unwrap();
    let machine = scratch.path().join("machine");
    fs::create_dir_all(machine.join("etc/apt")).unwrap();
    fs::write(
        machine.join("etc/os-release"),
        "ID=ubuntu\nVERSION_CODENAME=noble\n",
    )
    .unwrap();
    fs::write(
        machine.join("etc/apt/sources.list"),
        "deb https://browser.example stable main\n",
    )
    .unwrap();
    let cache = Cache::open(&scratch.path().join("cache")).unwrap();
    let error = tools::fetch(&cache, Tool::Qemu, &machine, &Quiet).unwrap_err();
    assert!(matches!(error, ToolError::NoSources { .. }), "{error:?}");
}
