//! Ends are told apart.

use std::io::Read;
use std::time::Instant;

use ktstr_machine::{End, Port, StopReason};
use ktstr_topology::Topology;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::guest::{COM1, COM2, Program};
use crate::{Guest, wait_until};

const PANIC: &str = "[    1.0] Kernel panic - not syncing: sysrq triggered crash\r\n";

fn send(guest: &Guest, signal: Signal) {
    let pid = i32::try_from(guest.machine.pid()).unwrap();
    kill(Pid::from_raw(pid), signal).unwrap();
}

#[test]
fn a_guest_powers_off() {
    let program = Program::new()
        .print(COM2, "two")
        .print(COM1, "one")
        .power_off();
    let mut guest = Guest::launch(&program);
    let mut frames = guest.machine.take_port(Port::Frames).unwrap();
    assert!(guest.machine.take_port(Port::Frames).is_none());
    assert!(guest.machine.take_port(Port::Shell).is_none());
    assert_eq!(guest.end(), End::PoweredOff);
    assert!(guest.machine.com1().contents().ends_with("one"));
    assert_eq!(guest.machine.com2().contents(), "two");
    assert_eq!(frames.read(&mut [0; 16]).unwrap(), 0);
    // Too late for anything else.
    guest.machine.stop(StopReason::Watchdog);
    assert_eq!(guest.machine.end(), Some(End::PoweredOff));
    assert!(guest.machine.pause().is_err());
    assert!(guest.machine.footprint_bytes().is_err());
}

#[test]
fn a_guest_resets() {
    let mut guest = Guest::launch(&Program::new().print(COM1, "now\r\n").reset());
    assert_eq!(guest.end(), End::Reset);
}

#[test]
fn a_panic_that_resets_keeps_its_text() {
    let program = Program::new()
        .print(COM1, "before\r\n")
        .print(COM1, PANIC)
        .print(COM1, "Call Trace:\r\n dump_stack\r\n")
        .reset();
    let end = Guest::launch(&program).end();
    insta::assert_snapshot!(end, @"the guest kernel panicked: sysrq triggered crash");
    let End::Panicked { text } = end else {
        panic!("{end}")
    };
    assert!(text.ends_with("crash\nCall Trace:\n dump_stack"), "{text}");
}

#[test]
fn a_panic_that_hangs_is_ended() {
    let program = Program::new().print(COM1, PANIC).spin();
    let mut guest = Guest::launch(&program);
    guest.wait_for_com1("sysrq");
    let seen = Instant::now();
    assert!(matches!(guest.end(), End::Panicked { .. }));
    assert!(seen.elapsed().as_secs() < 10);
}

#[test]
fn we_stop_it() {
    for reason in [StopReason::Done, StopReason::Watchdog, StopReason::User] {
        let mut guest = Guest::launch(&Program::new().spin());
        guest.machine.stop(reason);
        assert_eq!(guest.end(), End::Stopped(reason));
    }
}

#[test]
fn others_kill_it() {
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut guest = Guest::launch(&Program::new().print(COM1, "up\r\n").spin());
        guest.wait_for_com1("up");
        send(&guest, signal);
        let signal = signal as i32;
        assert_eq!(guest.end(), End::Killed { signal });
    }
}

#[test]
fn dropping_the_handle_ends_it() {
    let Guest { machine, ends, .. } = Guest::launch(&Program::new().spin());
    let pid = machine.pid();
    drop(machine);
    assert!(!crate::is_alive(pid));
    assert_eq!(ends.recv(), Ok(End::Stopped(StopReason::Done)));
}

/// The test starts itself again; the copy launches a machine, says so and waits to be killed.
#[test]
fn nothing_is_left_when_the_host_process_is_killed() {
    const CHILD: &str = "KTSTR_MACHINE_TEST_CHILD";
    const NAME: &str = "ends::nothing_is_left_when_the_host_process_is_killed";
    if std::env::var_os(CHILD).is_some() {
        let guest = Guest::launch(&Program::new().print(COM1, "up\r\n").spin());
        guest.wait_for_com1("up");
        eprintln!("qemu={}", guest.machine.pid());
        loop {
            std::thread::park();
        }
    }
    // The copy can't clean up after itself: its temporary files are ours.
    let dir = tempfile::tempdir().unwrap();
    let mut host = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(CHILD, "1")
        .env("TMPDIR", dir.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut stderr = host.stderr.take().unwrap();
    let qemu = loop {
        let mut byte = [0];
        assert_eq!(stderr.read(&mut byte).unwrap(), 1, "host said: {said}");
        said.push(char::from(byte[0]));
        if let Some((_, pid)) = said.split_once("qemu=")
            && let Some(pid) = pid.strip_suffix('\n')
        {
            break pid.parse::<u32>().unwrap();
        }
    };
    let was_alive = crate::is_alive(qemu);
    let files = files_that_would_stay(qemu);
    // Before anything is asserted: nobody else ends the copy.
    host.kill().unwrap();
    host.wait().unwrap();
    wait_until("QEMU is gone", || !crate::is_alive(qemu));
    assert!(was_alive);
    assert_eq!(files, Vec::<String>::new());
}

/// Open files of a process that are writable and have a name in a file system.
fn files_that_would_stay(pid: u32) -> Vec<String> {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .map(|path| path.to_string_lossy().into_owned())
        .filter(|path| path.starts_with('/') && !path.starts_with("/memfd:"))
        .filter(|path| !path.starts_with("/dev/null") && !path.ends_with(".elf"))
        .collect()
}

#[test]
fn fault_d1_the_watchdog_ends_a_machine_whose_handle_is_in_use_and_it_says_where_it_was() {
    let program = Program::new()
        .load_ebx(0x1122_3344)
        .print(COM1, "up")
        .spin();
    let topology = Topology::new(1, 1, 2, 1).unwrap();
    let ended = || {
        let mut guest = Guest::launch_with(&program, topology, 64, |_| {});
        guest.wait_for_com1("up");
        let stopper = guest.machine.stopper();
        // This thread holds the handle and only waits.
        let watchdog = std::thread::spawn(move || stopper.stop(StopReason::Watchdog));
        assert_eq!(guest.end(), End::Stopped(StopReason::Watchdog));
        watchdog.join().unwrap();
        guest.machine.vcpu_registers().ok()
    };
    // A QEMU that the host gives no CPU time meanwhile is not waited for.
    let registers = (0..20).find_map(|_| ended()).unwrap();
    assert_eq!(registers.len(), 2);
    assert_eq!(registers[0].gprs[1], 0x1122_3344);
    assert!(registers[1].halted, "waits for its start");
}

#[test]
fn fault_d1_the_watchdog_does_not_wait_for_a_qemu_that_does_not_answer() {
    let mut guest = Guest::launch(&Program::new().print(COM1, "up").spin());
    guest.wait_for_com1("up");
    send(&guest, Signal::SIGSTOP);
    let stopped = Instant::now();
    guest.machine.stopper().stop(StopReason::Watchdog);
    assert_eq!(guest.end(), End::Stopped(StopReason::Watchdog));
    assert!(stopped.elapsed().as_secs() < 8);
    let error = guest.machine.vcpu_registers().unwrap_err();
    assert!(error.to_string().contains("has ended"), "{error}");
}
