//! `cargo ktstr shell --exec` in real machines, and its answers to bad input.

use std::process::{Command, Output, Stdio};

fn shell(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cargo-ktstr"))
        .args(["ktstr", "shell"])
        .args(args)
        .output()
        .expect("the command runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_command_sees_the_machine_that_was_asked_for() {
    let command = "nproc; cat /sys/devices/system/node/online; uname -s; echo to stderr >&2";
    let ended = shell(&["--topology", "2,2,2,1", "--exec", command]);
    assert_eq!(
        text(&ended.stdout),
        "4\n0-1\nLinux\n",
        "{}",
        text(&ended.stderr)
    );
    assert!(text(&ended.stderr).contains("to stderr\n"));
    assert_eq!(ended.status.code(), Some(0));
}

#[test]
fn its_exit_status_is_the_commands() {
    assert_eq!(shell(&["--exec", "exit 7"]).status.code(), Some(7));
}

#[test]
fn an_included_file_can_be_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("greet");
    std::fs::write(&script, "#!/bin/sh\necho hello from $(basename $0)\n").expect("writable");
    let ended = shell(&[
        "--include",
        script.to_str().expect("text"),
        "--exec",
        "sh /root/greet",
    ]);
    assert_eq!(
        text(&ended.stdout),
        "hello from greet\n",
        "{}",
        text(&ended.stderr)
    );
}

/// The command itself is PID 1's program, so it is at hand to ask for the machine's own KVM.
#[test]
fn a_machine_with_a_kvm_of_its_own_finds_it_usable() {
    let ended = shell(&[
        "--engine",
        "tcg",
        "--memory-mib",
        "1024",
        "--nested-virtualization",
        "--exec",
        "/init doctor; true",
    ]);
    let told = text(&ended.stdout);
    let line = told.lines().find(|line| line.contains("KVM"));
    assert!(
        line.is_some_and(|line| line.contains("usable") && !line.contains("unusable")),
        "{told}{}",
        text(&ended.stderr)
    );
}

#[test]
fn a_command_that_does_not_end_is_ended() {
    let ended = shell(&["--timeout", "1", "--exec", "sleep 1000"]);
    assert_eq!(ended.status.code(), Some(3), "{}", text(&ended.stderr));
    assert!(
        text(&ended.stderr).contains("watchdog"),
        "{}",
        text(&ended.stderr)
    );
}

/// As into a pager that shows the first page.
#[test]
fn fault_d1_a_command_whose_output_nobody_reads_is_ended() {
    let started = Command::new(env!("CARGO_BIN_EXE_cargo-ktstr"))
        .args(["ktstr", "shell", "--timeout", "5", "--exec", "yes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut started = started.expect("the command runs");
    let unread = started.stdout.take();
    let ended = started.wait_with_output().expect("it ends");
    drop(unread);
    let said = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(3), "{said}");
    assert!(
        said.contains("the watchdog ended the machine after 5.0 s"),
        "{said}"
    );
    assert!(said.contains("nobody read them in time"), "{said}");
}

#[test]
fn bad_input_is_named_before_a_machine_starts() {
    for (args, words) in [
        (["--topology", "1,3,0,1"], "`cores` is 0"),
        (["--topology", "2,3,1,1"], "multiple of `numa_nodes`"),
        (["--topology", "1,64,64,2"], "8192 CPUs"),
        (["--include", "/no/such/file"], "/no/such/file"),
        (["--module", "no_such_module"], "no_such_module"),
        (["--kernel", "debian/nosuchsuite"], "nosuchsuite"),
    ] {
        let ended = shell(&[&args[..], &["--exec", "true"]].concat());
        assert_ne!(ended.status.code(), Some(0), "{args:?}");
        assert!(
            text(&ended.stderr).contains(words),
            "{args:?}: {}",
            text(&ended.stderr)
        );
        assert_eq!(text(&ended.stdout), "");
    }
}
