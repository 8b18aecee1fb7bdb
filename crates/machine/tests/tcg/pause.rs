//! A guest that pauses its machine, while another of its CPUs counts as fast as it can.

use std::sync::mpsc;

use ktstr_machine::{End, StopReason};
use ktstr_topology::Topology;

use super::guest::{COM1, COUNTER, Program, SEEN};
use super::{DEADLINE, Guest, tcg, wait_until};

const PORT: u8 = 0xe9;

fn word(guest: &Guest, address: u32) -> u32 {
    let mut word = [0; 4];
    let read = guest.machine.memory().read(address.into(), &mut word);
    read.expect("RAM is there");
    u32::from_le_bytes(word)
}

#[test]
fn all_cpus_stand_still_from_the_instruction_of_one_until_it_is_released() {
    let program = Program::new()
        .count_on_the_other_cpu()
        .pause_and_see(PORT)
        .print(COM1, "done")
        .spin();
    let (sender, pauses) = mpsc::channel();
    let two_cpus = Topology::new(1, 1, 2, 1).expect("a shape");
    let mut guest = Guest::launch_with_pauses(&program, two_cpus, PORT.into(), sender);
    pauses.recv_timeout(DEADLINE).expect("it pauses");
    guest.machine.pause().expect("paused");
    let held = word(&guest, COUNTER);
    // The other CPU counts ten thousands in that time.
    for _ in 0..10_000 {
        assert_eq!(word(&guest, COUNTER), held);
    }
    guest.machine.resume().expect("resumed");
    for _ in 0..10_000 {
        assert_eq!(word(&guest, COUNTER), held);
    }
    assert!(!guest.machine.com1().contents().contains("done"));
    // QEMU stops the vCPUs again for these.
    let registers = guest.machine.vcpu_registers().expect("registers");
    assert_eq!(registers.len(), 2);
    let held_with_registers = word(&guest, COUNTER);
    for _ in 0..10_000 {
        assert_eq!(word(&guest, COUNTER), held_with_registers);
    }
    assert!(pauses.try_recv().is_err(), "told once");
    guest.machine.release().expect("released");
    guest.wait_for_com1("done");
    let (before, after) = (word(&guest, SEEN), word(&guest, SEEN + 4));
    if tcg().describe().contains("one emulation thread per CPU") {
        assert!(before <= held, "{before} {held}");
    } else {
        // What the guest reads by the instructions before and after.
        assert_eq!((before, after), (held, held));
    }
    let count = word(&guest, COUNTER);
    wait_until("the other CPU counts on", || word(&guest, COUNTER) != count);
}

#[test]
fn a_pause_of_the_host_can_be_around_that_of_the_guest() {
    let program = Program::new()
        .print(COM1, "up")
        .pause_and_see(PORT)
        .print(COM1, "done")
        .spin();
    for _ in 0..3 {
        let (sender, pauses) = mpsc::channel();
        let mut guest = Guest::launch_with_pauses(&program, Topology::SINGLE, PORT.into(), sender);
        guest.wait_for_com1("up");
        // Before, in or after the pause of the guest.
        guest.machine.pause().expect("paused");
        guest.machine.resume().expect("resumed");
        pauses.recv_timeout(DEADLINE).expect("it pauses");
        guest.machine.release().expect("released");
        guest.machine.release().expect("nothing to do");
        guest.wait_for_com1("done");
    }
}

#[test]
fn a_guest_that_stays_paused_is_stopped() {
    let program = Program::new().pause_and_see(PORT).spin();
    let (sender, pauses) = mpsc::channel();
    let mut guest = Guest::launch_with_pauses(&program, Topology::SINGLE, PORT.into(), sender);
    pauses.recv_timeout(DEADLINE).expect("it pauses");
    guest.machine.stop(StopReason::Watchdog);
    assert_eq!(guest.end(), End::Stopped(StopReason::Watchdog));
    assert!(guest.machine.release().is_err());
}
