//! `cargo ktstr shell --exec` in real machines, and its answers to bad input.

use std::fs;
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
    fs::write(&script, "#!/bin/sh\necho hello from $(basename $0)\n").expect("writable");
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

/// Several claims in one boot: the files take more than half of the memory that was asked for; they are to be below
/// folders that the guest mounts on; and a program's library lies below one of those.
#[test]
fn fault_f3_and_f4_what_is_included_fits_and_is_there() {
    let folder = tempfile::tempdir_in("/tmp").expect("a folder");
    let root = folder.path();
    let at = |name: &str| root.join(name).display().to_string();
    for name in ["bin", "lib"] {
        fs::create_dir(root.join(name)).expect("ours");
    }
    fs::write(at("big"), vec![7; 64 << 20]).expect("writable");
    fs::write(at("note"), "note\n").expect("writable");
    fs::write(at("x.c"), "int x(void) { return 7; }").expect("writable");
    fs::write(at("main.c"), "int x(void); int main(void) { return x(); }").expect("writable");
    let library = [
        "-shared",
        "-fPIC",
        "-Wl,-soname,libx.so.1",
        &at("x.c"),
        "-o",
        &at("lib/libx.so.1"),
    ];
    let origin = "-Wl,-rpath,$ORIGIN/../lib";
    let program = [
        &at("main.c"),
        &at("lib/libx.so.1"),
        origin,
        "-o",
        &at("bin/program"),
    ];
    for args in [&library[..], &program[..]] {
        let made = Command::new("cc").args(args).status();
        assert!(made.expect("cc").success(), "{args:?}");
    }
    let mut args = vec!["--memory-mib".to_owned(), "256".to_owned()];
    let notes = ["/tmp/x", "/run/deep/x", "/dev/x", "/dev/shm/x"];
    let notes = notes.map(|guest| format!("{}:{guest}", at("note")));
    for include in [at("big"), at("bin/program")].into_iter().chain(notes) {
        args.extend(["--include".to_owned(), include]);
    }
    let command = "cat /tmp/x /run/deep/x /dev/x /dev/shm/x; stat -c %a /tmp; \
                   tr -d '\\7' <big | wc -c; wc -c <big; ./program";
    args.extend(["--exec".to_owned(), command.to_owned()]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ended = shell(&args);
    assert_eq!(
        text(&ended.stdout),
        "note\nnote\nnote\nnote\n1777\n0\n67108864\n",
        "{}",
        text(&ended.stderr)
    );
    assert_eq!(ended.status.code(), Some(7), "{}", text(&ended.stderr));
}

#[test]
fn fault_f4_a_file_can_not_be_put_where_it_would_be_hidden() {
    for guest in ["/proc/x", "/sys/fs/cgroup/x"] {
        let ended = shell(&[
            "--include",
            &format!("/etc/hostname:{guest}"),
            "--exec",
            "true",
        ]);
        let said = text(&ended.stderr);
        assert!(
            said.contains(&format!("`{guest}`")) && said.contains("/proc and /sys"),
            "{said}"
        );
    }
}
