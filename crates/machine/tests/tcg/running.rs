//! What can be seen of a guest while it runs.

use std::sync::Arc;
use std::time::Duration;

use ktstr_machine::{Disk, End, Port, StopReason, VcpuCpuTime};
use ktstr_topology::Topology;

use crate::guest::{COM1, Program};
use crate::{Guest, after, tcg, wait_until};

fn word_at(guest: &Guest, gpa: u64) -> u32 {
    let mut bytes = [0; 4];
    guest.machine.memory().read(gpa, &mut bytes).unwrap();
    u32::from_le_bytes(bytes)
}

#[test]
fn guest_memory_is_read_while_it_runs_and_after() {
    let program = Program::new()
        .store(0x20_0004, 0xfeed_face)
        .store(0x300_0000, 0x1234_5678)
        .spin();
    let topology = Topology::new(2, 2, 1, 1).unwrap();
    let mut guest = Guest::launch_with(&program, topology, 65, |_| {});
    wait_until("the second word is stored", || {
        word_at(&guest, 0x300_0000) == 0x1234_5678
    });
    assert_eq!(word_at(&guest, 0x20_0004), 0xfeed_face);
    guest.machine.stop(StopReason::Done);
    let memory = guest.machine.memory().clone();
    drop(guest);
    let mut bytes = [0; 8];
    memory.read(0x20_0002, &mut bytes).unwrap();
    assert_eq!(bytes, [0, 0, 0xce, 0xfa, 0xed, 0xfe, 0, 0]);
    assert_eq!(memory.size_bytes(), 65 << 20);
    assert!(memory.read(65 << 20, &mut bytes).is_err());
}

#[test]
fn ram_above_the_pci_hole_is_where_the_guest_sees_it() {
    let program = Program::new().store(0x7fff_fffc, 0xabcd_ef01).spin();
    let guest = Guest::launch_with(&program, Topology::SINGLE, 3072, |_| {});
    wait_until("the word is stored", || {
        word_at(&guest, 0x7fff_fffc) == 0xabcd_ef01
    });
    assert!(
        guest
            .machine
            .memory()
            .read(0x8000_0000, &mut [0; 4])
            .is_err()
    );
    assert_eq!(word_at(&guest, 0x1_0000_0000), 0);
}

#[test]
fn registers_tell_where_each_cpu_is_and_pausing_stops_it() {
    let program = Program::new()
        .load_ebx(0x1122_3344)
        .print(COM1, "up\r\n")
        .spin();
    let topology = Topology::new(1, 2, 1, 2).unwrap();
    let mut guest = Guest::launch_with(&program, topology, 64, |_| {});
    guest.wait_for_com1("up");
    guest.machine.pause().unwrap();
    let registers = guest.machine.vcpu_registers().unwrap();
    assert_eq!(registers.len(), 4);
    assert_eq!(registers[0].gprs[1], 0x1122_3344);
    assert_eq!(registers[0].rsp(), 0x20_0000);
    assert!((0x10_0000..0x10_0100).contains(&registers[0].rip));
    assert!(registers[1].halted, "waits for its start");
    assert_eq!(guest.machine.vcpu_registers().unwrap(), registers);
    guest.machine.resume().unwrap();
}

#[test]
fn a_paused_guest_says_nothing() {
    let mut guest = Guest::launch(&Program::new().flood());
    let seen = |guest: &Guest| guest.machine.com1().seen_bytes();
    wait_until("the flood runs", || seen(&guest) > 100_000);
    guest.machine.pause().unwrap();
    // What was on its way arrives; then no more comes.
    let mut before = seen(&guest);
    wait_until("it is quiet", || {
        std::thread::sleep(Duration::from_millis(50));
        std::mem::replace(&mut before, seen(&guest)) == before
    });
    guest.machine.resume().unwrap();
    wait_until("it goes on", || seen(&guest) > before);
}

#[test]
fn what_a_guest_prints_in_one_go_arrives_whole() {
    let text: String = (0..6000).map(|number| format!("{number}\n")).collect();
    let guest = Guest::launch(
        &Program::new()
            .print_regardless(COM1, &text)
            .print(COM1, "done")
            .spin(),
    );
    guest.wait_for_com1("done");
    assert!(guest.machine.com1().contents().contains(&text));
}

#[test]
fn a_flood_is_counted_and_dropped() {
    let mut guest = Guest::launch(&Program::new().print(COM1, "start").flood());
    let com1 = guest.machine.com1().clone();
    wait_until("1 MiB came", || com1.seen_bytes() > 1 << 20);
    guest.machine.stop(StopReason::Watchdog);
    let kept = com1.contents();
    assert!(kept.len() < 330 << 10);
    assert!(after(&kept, "start").starts_with('x'));
    assert!(kept.contains("bytes left out"));
    assert!(com1.dropped_bytes() > 600 << 10);
}

#[test]
fn the_shell_port_is_there_when_asked_for() {
    let mut guest = Guest::launch_with(&Program::new().spin(), Topology::SINGLE, 64, |spec| {
        spec.interactive_console = true;
    });
    assert!(guest.machine.take_port(Port::Shell).is_some());
    assert!(guest.machine.take_port(Port::Shell).is_none());
}

#[test]
fn qemu_itself_uses_little_memory() {
    let guest = Guest::launch_with(
        &Program::new().print(COM1, "up").spin(),
        Topology::SINGLE,
        512,
        |_| {},
    );
    guest.wait_for_com1("up");
    let bytes = guest.machine.footprint_bytes().unwrap();
    assert!((1 << 20..200 << 20).contains(&bytes), "{bytes}");
}

#[test]
fn the_cpu_time_of_vcpus_is_that_of_their_threads() {
    let topology = Topology::new(1, 1, 2, 1).unwrap();
    let program = Program::new().print(COM1, "up").spin();
    let mut guest = Guest::launch_with(&program, topology, 64, |_| {});
    guest.wait_for_com1("up");
    let clock = guest.machine.vcpu_clock().unwrap();
    let spinning_ns = || match clock.read().unwrap() {
        VcpuCpuTime::Own(times) => {
            assert_eq!(times.len(), 2);
            times[0]
        }
        VcpuCpuTime::Shared { thread_ns, turn_ns } => {
            assert_eq!(turn_ns, 100_000_000);
            thread_ns
        }
    };
    let before = spinning_ns();
    wait_until("the guest spins", || spinning_ns() > before + 10_000_000);
    guest.machine.stop(StopReason::Done);
    assert!(clock.read().is_err());
}

/// As many threads as vCPUs and more, and all that QEMU does at its start and end, run under it.
#[test]
fn qemu_runs_in_its_sandbox() {
    let engine = tcg();
    let sandboxed = !engine.describe().contains("without a sandbox");
    let program = Program::new().print(COM1, "up").spin();
    let guest = Guest::launch_with(&program, Topology::new(2, 2, 2, 2).unwrap(), 64, |_| {});
    guest.wait_for_com1("up");
    let status = format!("/proc/{}/status", guest.machine.pid());
    let status = std::fs::read_to_string(status).unwrap();
    let mode = after(&status, "\nSeccomp:\t").split_once('\n').unwrap().0;
    // A container may have filters of its own.
    assert!(mode == "2" || !sandboxed, "{status}");
}

#[test]
fn qemu_makes_a_disk() {
    let program = Program::new().print(COM1, "up\r\n").power_off();
    let mut guest = Guest::launch_with(&program, Topology::SINGLE, 64, |spec| {
        spec.devices = vec![Arc::new(Disk { len_mib: 64 })];
    });
    let end = guest.machine.wait(Duration::from_secs(60));
    assert_eq!(end, Some(End::PoweredOff));
}
