//! The microVM beside QEMU's: the side within the outer machine, which has a KVM.
//!
//! Each boot is a process of its own, timed from its start to its end, the probe of KVM included in ours. The
//! guest's `/init` reboots at once, and the options are the same for both. Prints one JSON object a line.

use std::fs;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ktstr_machine::{
    BootKernel, Chosen, End, EngineKind, EngineOptions, InitrdPart, Machine, MachineSpec,
    StopReason, on_end,
};
use ktstr_topology::Topology;
use nix::sys::personality::{self, Persona};
use nix::time::{ClockId, clock_gettime};

use crate::minimal_init::{self, Finish};
use crate::nested::{BZIMAGE, FIRMWARE, QEMU, VMLINUX};

const INITRAMFS: &str = "/tmp/initramfs";
const MEMORY_MIB: u64 = 512;

/// What QEMU's guest gets. The microVM's engine adds the same by itself, but for the way to reboot: QEMU's microvm has
/// no reset line, and ours would take a triple fault for one.
const OPTIONS: &str = "console=ttyS0 loglevel=5 panic=-1 cryptomgr.notests reboot=t";

/// CPUs of the machine whose memory is looked at.
const MEMORY_CPUS: u32 = 4;

const DEADLINE: Duration = Duration::from_secs(600);

/// What can be booted.
#[derive(Clone, Copy)]
enum Boot {
    Qemu(&'static str),
    Ours,
}

impl Boot {
    const ALL: [(&'static str, Self); 3] = [
        ("QEMU microvm, bzImage", Self::Qemu(BZIMAGE)),
        ("QEMU microvm, vmlinux", Self::Qemu(VMLINUX)),
        ("microVM, vmlinux", Self::Ours),
    ];

    fn command(self) -> Result<Command> {
        let mut command;
        match self {
            Self::Qemu(kernel) => {
                command = Command::new(QEMU);
                command
                    .args([
                        "-L", FIRMWARE, "-M", "microvm", "-accel", "kvm", "-cpu", "host",
                    ])
                    .args(["-smp", "1", "-m", &MEMORY_MIB.to_string()])
                    .args(["-nodefaults", "-no-user-config", "-no-reboot"])
                    .args(["-display", "none", "-serial", "stdio"])
                    .args(["-kernel", kernel, "-initrd", INITRAMFS, "-append", OPTIONS]);
            }
            Self::Ours => {
                command = Command::new(std::env::current_exe()?);
                command.args(["ours", "1", "total"]);
            }
        }
        Ok(command)
    }
}

/// All that is measured; without pairs, the set-ups alone.
pub(crate) fn measure(pairs: u32, set_ups: u32) -> Result<()> {
    fs::write(INITRAMFS, minimal_init::initramfs(Finish::Reboot)?)?;
    if pairs > 0 {
        measure_boots(pairs)?;
    }
    measure_set_up(set_ups)
}

fn measure_boots(pairs: u32) -> Result<()> {
    for (name, boot) in Boot::ALL {
        // Fills the page cache and is not counted.
        timed(name, boot.command()?)?;
    }
    for round in 0..pairs as usize {
        let mut order: Vec<_> = Boot::ALL.into_iter().enumerate().collect();
        order.rotate_left(round % Boot::ALL.len());
        if round % 2 == 1 {
            order.reverse();
        }
        for (_, (name, boot)) in order {
            let (ns, _) = timed(name, boot.command()?)?;
            println!(r#"{{"boot":"{name}","ns":{ns}}}"#);
        }
    }
    let mut memory = Command::new(std::env::current_exe()?);
    memory.args(["ours", &MEMORY_CPUS.to_string(), "memory"]);
    let (_, output) = timed("microVM, memory", memory)?;
    for line in output.lines().filter(|line| line.starts_with('{')) {
        println!("{line}");
    }
    Ok(())
}

/// What our set-up takes, of a process of its own each time.
///
/// An emulator translates code when it first runs, and QEMU 7.2 does so for each address anew: for each process,
/// whose addresses are random. A CPU translates nothing. So what counts is measured in processes that all have the
/// same addresses, the first of which is not counted; what it takes at new ones is told beside it.
fn measure_set_up(times: u32) -> Result<()> {
    let random = personality::get()?;
    for (persona, look) in [
        (random | Persona::ADDR_NO_RANDOMIZE, "set-up"),
        (random, "set-up-at-new-addresses"),
    ] {
        personality::set(persona)?;
        // The first one fills the page cache and is not counted.
        for time in 0..=times {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["ours", "1", look]);
            if time == 0 {
                command.stdout(Stdio::null());
            }
            let status = command.stdin(Stdio::null()).status()?;
            ensure!(status.success(), "a set-up ended with {status}");
        }
    }
    Ok(())
}

/// What is looked at in a boot of ours.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Total,
    SetUp,
    SetUpAtNewAddresses,
    Memory,
}

impl FromStr for Look {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "total" => Ok(Self::Total),
            "set-up" => Ok(Self::SetUp),
            "set-up-at-new-addresses" => Ok(Self::SetUpAtNewAddresses),
            "memory" => Ok(Self::Memory),
            _ => bail!("there is nothing to look at called {word}"),
        }
    }
}

/// Time of the process, and what it printed.
fn timed(name: &str, mut command: Command) -> Result<(u128, String)> {
    let start = Instant::now();
    let ended = command.stdin(Stdio::null()).output();
    let ns = start.elapsed().as_nanos();
    let ended = ended.with_context(|| format!("can't run {name}"))?;
    let output = String::from_utf8_lossy(&ended.stdout).into_owned();
    ensure!(
        ended.status.success() && output.contains("reboot: Restarting system"),
        "{name}: the guest did not get to its init ({}):\n{output}{}",
        ended.status,
        String::from_utf8_lossy(&ended.stderr)
    );
    Ok((ns, output))
}

/// Boots on the `kvm` engine, and prints the console and what was looked at.
pub(crate) fn ours(cpus: &str, look: Look) -> Result<()> {
    let probe = Instant::now();
    let Chosen { engine, .. } = ktstr_machine::choose(EngineKind::Kvm, &EngineOptions::default())?;
    let probe = probe.elapsed();
    let kernel = BootKernel {
        vmlinux: Some(VMLINUX.into()),
        bzimage: None,
        pvh: false,
    };
    let mut spec = MachineSpec::new(Topology::new(1, 1, cpus.parse()?, 1)?, MEMORY_MIB, kernel);
    spec.initrd = vec![InitrdPart::File(INITRAMFS.into())];
    spec.immutable_files = true;
    let (sender, ended) = channel();
    let start = Start {
        at: Instant::now(),
        process_cpu: cpu_time(ClockId::CLOCK_PROCESS_CPUTIME_ID)?,
        thread_cpu: cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID)?,
    };
    let mut machine = engine.launch(&spec, on_end(move |end| drop(sender.send(end))))?;
    match look {
        Look::SetUp => {
            let launched = cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID)? - start.thread_cpu;
            let launch = start.at.elapsed();
            println!(r#"{{"figure":"probe","wall_ns":{}}}"#, probe.as_nanos());
            start.print_set_up("set-up", machine.as_mut())?;
            print_step("launch", launch, launched);
            for step in machine.startup().steps {
                print_step(step.name, step.wall, step.cpu);
            }
            return Ok(());
        }
        Look::SetUpAtNewAddresses => {
            return start.print_set_up("set-up at new addresses", machine.as_mut());
        }
        Look::Total | Look::Memory => {}
    }
    let mut most_bytes = 0;
    let until = Instant::now() + DEADLINE;
    let end = loop {
        if look == Look::Memory {
            most_bytes = most_bytes.max(machine.footprint_bytes()?);
        }
        match ended.recv_timeout(Duration::from_millis(100)) {
            Ok(end) => break end,
            Err(_) if Instant::now() < until => {}
            Err(_) => bail!("the guest did not end:\n{}", machine.com1().contents()),
        }
    };
    println!("{}", machine.com1().contents());
    ensure!(end == End::Reset, "{end}");
    if look == Look::Memory {
        println!(r#"{{"memory_cpus":{cpus},"bytes":{most_bytes}}}"#);
    }
    Ok(())
}

/// The process is ready: nothing but the machine is missing.
struct Start {
    at: Instant,
    process_cpu: Duration,
    thread_cpu: Duration,
}

impl Start {
    /// Waits until the guest has run, ends the machine, and prints what it took until then.
    fn print_set_up(&self, name: &str, machine: &mut dyn Machine) -> Result<()> {
        let until = Instant::now() + DEADLINE;
        let first = loop {
            match machine.startup().first_run {
                Some(first) => break first,
                None if Instant::now() < until => std::thread::yield_now(),
                None => bail!("the guest did not run"),
            }
        };
        machine.stop(StopReason::Done);
        print_step(
            name,
            first.at - self.at,
            first.process_cpu - self.process_cpu,
        );
        Ok(())
    }
}

fn print_step(name: &str, wall: Duration, cpu: Duration) {
    println!(
        r#"{{"figure":"{name}","wall_ns":{},"cpu_ns":{}}}"#,
        wall.as_nanos(),
        cpu.as_nanos()
    );
}

fn cpu_time(clock: ClockId) -> Result<Duration> {
    Ok(clock_gettime(clock)?.into())
}
