//! Machines with a guest of a few instructions: how they start, are looked into, and end. They need
//! /dev/kvm, but no KVM that can run a kernel. Where it can't be opened, that is what starting one says.

#![expect(
    clippy::unwrap_used,
    reason = "a test that can't go on is to stop there"
)]

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ktstr_topology::Topology;
use ktstr_vmm::{
    BootSource, ControlError, End, InitrdPart, MicroVm, NodeMemory, OnEnd, StartError, Stream,
    VmConfig,
};
use nix::sys::memfd::{MFdFlags, memfd_create};

const RAM_BYTES: u64 = 32 << 20;
/// Where the guest's code is.
const ENTRY: u64 = 0x100_0000;
const DEADLINE: Duration = Duration::from_secs(20);

fn file(bytes: &[u8]) -> File {
    let mut file = File::from(memfd_create(c"image", MFdFlags::MFD_CLOEXEC).unwrap());
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

/// An ELF kernel of one segment.
fn kernel(code: &[u8]) -> File {
    let mut image = b"\x7fELF\x02\x01\x01".to_vec();
    image.resize(16, 0);
    image.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    image.extend(ENTRY.to_le_bytes());
    image.extend(64_u64.to_le_bytes());
    image.extend([0; 8]);
    image.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    image.extend([1, 0, 0, 0, 7, 0, 0, 0]);
    for word in [120, ENTRY, ENTRY, code.len() as u64, 0x1000, 0x1000] {
        image.extend(word.to_le_bytes());
    }
    image.extend(code);
    file(&image)
}

/// Creates a machine, loads `code`, and runs it.
fn run_on(config: VmConfig, code: &[u8], on_end: OnEnd) -> Result<MicroVm, StartError> {
    let source = BootSource::new(kernel(code));
    config.create()?.load(source)?.run(on_end)
}

/// Starts a machine that runs `code`; `None` where there is no KVM.
pub(crate) fn start(topology: Topology, code: &[u8]) -> Option<(MicroVm, Receiver<End>)> {
    start_with(topology, code, |config| config)
}

fn start_with(
    topology: Topology,
    code: &[u8],
    change: impl FnOnce(VmConfig) -> VmConfig,
) -> Option<(MicroVm, Receiver<End>)> {
    let nodes = (0..topology.numa_nodes())
        .map(|_| NodeMemory::new(RAM_BYTES).unwrap())
        .collect();
    let (sender, ends) = mpsc::channel();
    let on_end = Box::new(move |end| sender.send(end).unwrap());
    let machine = run_on(change(VmConfig::new(topology, nodes)), code, on_end);
    if File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok()
    {
        return Some((machine.unwrap(), ends));
    }
    let refused = machine.unwrap_err();
    assert!(refused.to_string().contains("/dev/kvm"), "{refused}");
    None
}

/// Runs `code` to its end; what COM1 said, and the end.
fn run(code: &[u8]) -> Option<(String, End)> {
    let (mut machine, ends) = start(Topology::SINGLE, code)?;
    let mut com1 = machine.take_stream(Stream::Com1).unwrap();
    assert!(machine.take_stream(Stream::Com1).is_none());
    let end = machine.wait(DEADLINE).unwrap();
    assert_eq!(ends.recv_timeout(DEADLINE).unwrap(), end);
    assert_eq!(machine.end(), Some(end.clone()));
    let mut said = String::new();
    com1.read_to_string(&mut said).unwrap();
    Some((said, end))
}

/// `mov dx, port; mov al, value; out dx, al`
fn out(port: u16, value: u8) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0x66, 0xba, low, high, 0xb0, value, 0xee]
}

/// `jmp .`
pub(crate) const SPIN: [u8; 2] = [0xeb, 0xfe];

fn wait_until(mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Threads of this process that belong to machines.
fn machine_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| name.starts_with("ktstr-")).count()
}

/// Whether the thread that serves a machine waits.
fn machine_thread_sleeps() -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let mut stats =
        tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok());
    stats.any(|stat| stat.contains(" (ktstr-vm) S "))
}

#[test]
fn a_guest_speaks_and_powers_off() {
    let code = [
        out(0x3f8, b'o'),
        out(0x3f8, b'k'),
        out(0x600, 0x34),
        SPIN.to_vec(),
    ]
    .concat();
    if let Some(ended) = run(&code) {
        assert_eq!(ended, ("ok".to_owned(), End::PoweredOff));
    }
}

#[test]
fn the_end_of_the_set_up_is_known() {
    let before = Instant::now();
    let Some((machine, _)) = start(Topology::SINGLE, &SPIN) else {
        return;
    };
    wait_until(|| machine.first_run().is_some());
    let first = machine.first_run().unwrap();
    assert!((before..Instant::now()).contains(&first.at));
    assert!(first.process_cpu > machine.setup_times().vm.cpu);
    assert_eq!(machine.first_run(), Some(first));
}

#[test]
fn both_ways_of_a_reset_are_one() {
    for code in [out(0xcf9, 6), out(0x64, 0xfe)] {
        if let Some((_, end)) = run(&[code, SPIN.to_vec()].concat()) {
            assert_eq!(end, End::Reset);
        }
    }
}

#[test]
fn a_cpu_that_runs_into_nothing_is_named() {
    // mov eax, 0xd0000000; jmp rax: no device and no RAM is there.
    if let Some((_, end)) = run(&[0xb8, 0, 0, 0, 0xd0, 0xff, 0xe0]) {
        let End::Broken {
            vcpu: 0,
            rip: Some(0xd000_0000),
            reason,
        } = &end
        else {
            panic!("{end:?}");
        };
        assert!(reason.contains("could not emulate"), "{reason}");
        assert!(
            end.to_string()
                .contains("vCPU 0 broke down at RIP 0xd0000000"),
            "{end}"
        );
    }
}

#[test]
fn a_guest_without_exception_handlers_faults_three_times() {
    // ud2
    if let Some((_, end)) = run(&[0x0f, 0x0b]) {
        let End::TripleFault { vcpu: 0, rip } = end else {
            panic!("{end:?}");
        };
        // Intel's VT-x leaves the registers as they were, AMD-V does not.
        assert!([None, Some(ENTRY)].contains(&rip), "{rip:x?}");
        let words = end.to_string();
        assert!(words.starts_with("triple fault on vCPU 0"), "{words}");
        assert_eq!(rip.is_none(), words.contains("RIP is lost"), "{words}");
    }
}

#[test]
fn a_sleeping_guest_is_seen_to_sleep_and_killed() {
    // hlt, with interrupts off.
    let Some((mut machine, _ends)) = start(Topology::SINGLE, &[0xf4]) else {
        return;
    };
    wait_until(|| machine.registers().unwrap()[0].halted);
    assert_eq!(machine.registers().unwrap()[0].rip, ENTRY + 1);
    machine.killer().kill();
    assert_eq!(machine.wait(DEADLINE), Some(End::Stopped));
    assert_eq!(machine.registers().unwrap()[0].rip, ENTRY + 1);
}

#[test]
fn the_callback_may_drop_the_machine() {
    let code = [out(0x600, 0x34), SPIN.to_vec()].concat();
    let held: Arc<Mutex<Option<MicroVm>>> = Arc::default();
    let (sender, ends) = mpsc::channel();
    let on_end = {
        let held = Arc::clone(&held);
        Box::new(move |end| {
            drop(held.lock().unwrap().take());
            sender.send(end).unwrap();
        })
    };
    let mut slot = held.lock().unwrap();
    let node = NodeMemory::new(RAM_BYTES).unwrap();
    let config = VmConfig::new(Topology::SINGLE, vec![node]);
    let machine = run_on(config, &code, on_end);
    let Ok(machine) = machine else {
        return;
    };
    *slot = Some(machine);
    drop(slot);
    assert_eq!(ends.recv_timeout(DEADLINE).unwrap(), End::PoweredOff);
}

#[test]
fn a_spinning_guest_is_paused_looked_into_and_killed() {
    let topology = Topology::new(1, 1, 2, 1).unwrap();
    // mov dword ptr [0x1100000], 0x5a5a5a5a, then spin with interrupts off.
    let store = [0xc7, 0x04, 0x25, 0, 0, 0x10, 0x01, 0x5a, 0x5a, 0x5a, 0x5a];
    let Some((mut machine, ends)) = start(topology, &[&store[..], &SPIN].concat()) else {
        return;
    };
    let mut word = [0; 4];
    wait_until(|| {
        machine.ram().read(0x110_0000, &mut word).unwrap();
        word == [0x5a; 4]
    });
    for _ in 0..20 {
        machine.pause().unwrap();
        machine.pause().unwrap();
        let registers = machine.registers().unwrap();
        assert_eq!(registers.len(), 2);
        assert_eq!(registers[0].rip, ENTRY + 11);
        assert_eq!(registers[0].cr3, 0x9000);
        assert!(!registers[0].halted);
        machine.resume().unwrap();
        assert_eq!(machine.registers().unwrap()[0].rip, ENTRY + 11);
    }
    assert_eq!(machine.end(), None);
    assert_eq!(machine.wait(Duration::ZERO), None);
    machine.pause().unwrap();
    machine.kill();
    assert_eq!(machine.end(), Some(End::Stopped));
    assert_eq!(ends.try_recv().unwrap(), End::Stopped);
    assert!(matches!(machine.resume(), Err(ControlError::Ended { .. })));
    assert_eq!(machine.registers().unwrap()[0].rip, ENTRY + 11);
    assert!(matches!(machine.pause(), Err(ControlError::Ended { .. })));
    machine.ram().read(0x110_0000, &mut word).unwrap();
    assert_eq!(word, [0x5a; 4]);
}

#[test]
fn a_guest_pauses_its_machine_before_its_next_instruction() {
    const PORT: u16 = 0xe9;
    // mov dword ptr [0x1100000], 0x5a5a5a5a
    let store = [0xc7, 0x04, 0x25, 0, 0, 0x10, 0x01, 0x5a, 0x5a, 0x5a, 0x5a];
    let code = [&out(PORT, 1)[..], &out(PORT + 1, 0), &store, &SPIN].concat();
    let (sender, pauses) = mpsc::channel();
    let on_pause = Box::new(move || sender.send(()).unwrap());
    let with_port = |config: VmConfig| config.pause_port(PORT, on_pause);
    let Some((mut machine, _ends)) = start_with(Topology::SINGLE, &code, with_port) else {
        return;
    };
    pauses.recv_timeout(DEADLINE).unwrap();
    let word = |machine: &MicroVm| {
        let mut word = [0; 4];
        machine.ram().read(0x110_0000, &mut word).unwrap();
        word
    };
    // A pause of the host within that of the guest does not end it.
    for _ in 0..20 {
        machine.pause().unwrap();
        assert_eq!(machine.registers().unwrap()[0].rip, ENTRY + 7);
        machine.resume().unwrap();
        assert_eq!(machine.registers().unwrap()[0].rip, ENTRY + 7);
    }
    assert_eq!(word(&machine), [0; 4]);
    machine.release().unwrap();
    wait_until(|| word(&machine) == [0x5a; 4]);
    assert!(pauses.try_recv().is_err(), "told once");
    machine.kill();
    assert!(matches!(machine.release(), Err(ControlError::Ended { .. })));
}

/// Counts in RBX the bytes that it has written to COM1, each the low byte of its number, and reads every
/// one back from the UART's scratch register. If that holds something else, it powers off.
fn counting_guest() -> Vec<u8> {
    let counted = [
        &[0x31, 0xdb, 0x31, 0xc0][..],         // xor ebx, ebx; xor eax, eax
        &[0x66, 0xba, 0xf8, 0x03, 0xee],       // again: mov dx, 0x3f8; out dx, al
        &[0x48, 0xff, 0xc3, 0x89, 0xd8],       // inc rbx; mov eax, ebx
        &[0x66, 0xba, 0xff, 0x03, 0xee],       // mov dx, 0x3ff; out dx, al
        &[0x31, 0xc0, 0xec, 0x38, 0xd8],       // xor eax, eax; in al, dx; cmp al, bl
        &[0x75, 0x04, 0x89, 0xd8, 0xeb, 0xe6], // jne +4; mov eax, ebx; jmp again
    ];
    [counted.concat(), out(0x600, 0x34), SPIN.to_vec()].concat()
}

/// A paused machine could be saved and run on elsewhere only if each access to a device has either not
/// begun or is over, in the registers as for the device.
#[test]
fn a_pause_falls_between_two_accesses() {
    const AFTER_OUT: u64 = ENTRY + 9;
    let Some((mut machine, _ends)) = start(Topology::SINGLE, &counting_guest()) else {
        return;
    };
    let mut com1 = machine.take_stream(Stream::Com1).unwrap();
    let (mut written, mut slowest) = (0_u64, Duration::ZERO);
    for round in 0..100 {
        let before_round = written;
        // The guest is stopped in the midst of work, not just where it was let go.
        while written < before_round + 1 + round % 7 {
            let mut byte = [0];
            com1.read_exact(&mut byte).unwrap();
            assert_eq!(u64::from(byte[0]), written & 0xff, "in round {round}");
            written += 1;
        }
        let asked = Instant::now();
        machine.pause().unwrap();
        slowest = slowest.max(asked.elapsed());
        let registers = machine.registers().unwrap()[0];
        for byte in pending(&mut com1) {
            assert_eq!(u64::from(byte), written & 0xff, "in round {round}");
            written += 1;
        }
        let counted = registers.gprs[RBX] + u64::from(registers.rip == AFTER_OUT);
        assert_eq!(written, counted, "in round {round}: {registers:x?}");
        machine.resume().unwrap();
    }
    assert_eq!(machine.end(), None);
    machine.kill();
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}

/// A read has no effect on a device from which the host could tell that it took place. But where the guest
/// does nothing else, nearly every pause falls into one, and is to see it completed.
#[test]
fn a_pause_completes_a_read() {
    // mov dx, 0x3ff; again: in al, dx; inc rbx; jmp again
    let code = [0x66, 0xba, 0xff, 0x03, 0xec, 0x48, 0xff, 0xc3, 0xeb, 0xfa];
    const BEFORE_READ: u64 = ENTRY + 4;
    let Some((mut machine, _ends)) = start(Topology::SINGLE, &code) else {
        return;
    };
    let (mut counted, mut completed) = (0, 0);
    for _ in 0..100 {
        wait_until(|| machine.registers().unwrap()[0].gprs[RBX] > counted);
        machine.pause().unwrap();
        let registers = machine.registers().unwrap()[0];
        counted = registers.gprs[RBX];
        completed += u32::from(registers.rip != BEFORE_READ);
        machine.resume().unwrap();
    }
    machine.kill();
    assert!(completed >= 50, "{completed} of 100");
}

/// Place of RBX in the general registers.
const RBX: usize = 1;

/// What can be read now.
fn pending(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.set_nonblocking(true).unwrap();
    let end = stream.read_to_end(&mut bytes).unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
    bytes
}

#[test]
fn an_end_is_told_at_once() {
    let mut fastest = DEADLINE;
    for _ in 0..3 {
        let Some((mut machine, ends)) = start(Topology::SINGLE, &SPIN) else {
            return;
        };
        wait_until(machine_thread_sleeps);
        let killed = Instant::now();
        machine.kill();
        assert_eq!(ends.try_recv().unwrap(), End::Stopped);
        fastest = fastest.min(killed.elapsed());
    }
    // By itself it looks around once a second.
    assert!(fastest < Duration::from_millis(500), "{fastest:?}");
}

#[test]
fn a_dropped_machine_leaves_no_thread() {
    let Some((machine, ends)) = start(Topology::new(1, 2, 4, 1).unwrap(), &SPIN) else {
        return;
    };
    // A thread names itself, so that may take a moment.
    wait_until(|| machine_threads() >= 8);
    drop(machine);
    assert_eq!(ends.try_recv().unwrap(), End::Stopped);
    // Tests of this file that run beside this one in the same process have threads of their own.
    wait_until(|| machine_threads() == 0);
}

#[test]
fn memory_that_was_handed_in_is_the_guests() {
    let node = NodeMemory::new(RAM_BYTES).unwrap();
    let ram = File::from(node.as_fd().try_clone_to_owned().unwrap());
    let code = [out(0x600, 0x34), SPIN.to_vec()].concat();
    let source =
        BootSource::new(kernel(&code)).initrd(InitrdPart::Bytes(b"archive".as_slice().into()));
    let machine = VmConfig::new(Topology::SINGLE, vec![node])
        .create()
        .and_then(|created| created.load(source)?.run(Box::new(|_| {})));
    let mut bytes = [0; 7];
    if let Ok(machine) = machine {
        assert_eq!(machine.wait(DEADLINE), Some(End::PoweredOff));
        ram.read_exact_at(&mut bytes, ENTRY).unwrap();
        assert_eq!(bytes, code[..7]);
        ram.read_exact_at(&mut bytes, RAM_BYTES - 4096).unwrap();
        assert_eq!(&bytes, b"archive");
    }
}

#[test]
fn what_can_not_be_built_is_refused() {
    let build = |topology, nodes: &[u64]| {
        let nodes = nodes.iter().map(|&len| NodeMemory::new(len));
        let nodes = nodes.collect::<io::Result<_>>().unwrap();
        VmConfig::new(topology, nodes).create()
    };
    let two = Topology::new(2, 2, 1, 1).unwrap();
    assert!(matches!(
        build(two, &[RAM_BYTES]),
        Err(StartError::NodeCount {
            given: 1,
            declared: 2
        })
    ));
    let sparse = Topology::new(1, 3, 1, 1).unwrap();
    let node = vec![NodeMemory::new(RAM_BYTES).unwrap()];
    let error = VmConfig::new(sparse, node)
        .llc_from_apic_id_bit(15)
        .create()
        .unwrap_err()
        .to_string();
    assert!(error.contains("APIC ids up to 65536"), "{error}");
}

#[test]
fn the_probe_answers_in_time_and_says_why_not() {
    let start = Instant::now();
    match ktstr_vmm::probe() {
        Ok(usable) => assert!(usable.max_vcpus >= 2),
        Err(unusable) => assert!(!unusable.to_string().is_empty()),
    }
    assert!(start.elapsed() < Duration::from_secs(2));
}
