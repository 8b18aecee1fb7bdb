//! Finding QEMU, and starting machines on it.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;

use ktstr_report::TimingSlack;
use ktstr_topology::Topology;
use ktstr_vmm::{GuestRam, NodeMemory, StartError};

use super::KICK_PERIOD_MS;
use super::args::{Abilities, SANDBOX, kernel_cmdline, qemu_args};
use super::control::Control;
use super::machine::{Pauses, TcgMachine};
use super::process;
use super::shared::Shared;
use super::streams::{self, ChildEnds};
use super::supervisor::{Streams, Supervisor};
use super::topology::ram_regions;
use super::tsc;
use super::version::{OLDEST, Version};
use crate::end_cell::MachineThread;
use crate::engine::{Engine, EngineError, EngineOptions, LaunchError, OnEvent};
use crate::initrd;
use crate::limits::check_memory;
use crate::machine::Machine;
use crate::performance;
use crate::spec::{MachineSpec, SpecError, open_input};

const NAME: &str = "tcg";

const DEFAULT_QEMU: &str = "qemu-system-x86_64";

/// Most characters of a message of QEMU's that are repeated.
const MAX_SAID_CHARS: usize = 200;

/// `q35` takes 288 CPUs (hw/i386/pc_q35.c), but APIC ids from 255 on need an emulated IOMMU, which costs
/// boot time and which no test has asked for.
const MAX_CPUS: u32 = 255;

/// `MAX_NODES` in QEMU (include/sysemu/numa.h).
const MAX_NODES: u32 = 128;

/// There if the host's kernel filters system calls (seccomp(2)).
const SECCOMP: &str = "/proc/sys/kernel/seccomp/actions_avail";

/// How long the host's own scheduler may keep an emulation thread waiting on a busy host.
const HOST_SLACK_MS: u64 = 50;

/// How a QEMU was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Named,
    OnPath,
    InCache,
}

/// QEMU's software emulation.
#[derive(Debug)]
pub(crate) struct TcgEngine {
    qemu: PathBuf,
    found: Found,
    version: Version,
    /// Whether it limits itself to the system calls that it needs.
    sandbox: bool,
}

impl TcgEngine {
    /// The QEMU that was named; else the one on `PATH`; else the one that was fetched.
    pub(crate) fn find(options: &EngineOptions) -> Result<Self, EngineError> {
        if let Some(named) = &options.qemu {
            return Self::at(named, Found::Named);
        }
        let on_path = Self::at(Path::new(DEFAULT_QEMU), Found::OnPath);
        match (on_path, &options.fetched_qemu) {
            (Err(on_path), Some(fetched)) => match (Self::at(fetched, Found::InCache), on_path) {
                (Ok(engine), _) => Ok(engine),
                // There is nothing to mend on PATH.
                (Err(fetched), EngineError::QemuMissing { .. }) => Err(fetched),
                (Err(_), on_path) => Err(on_path),
            },
            (on_path, _) => on_path,
        }
    }

    /// Asks a QEMU for its version, and whether it can be sandboxed: one without the ability refuses the option.
    fn at(qemu: &Path, found: Found) -> Result<Self, EngineError> {
        let sandboxed = Command::new(qemu)
            .args(SANDBOX)
            .arg("--version")
            .stdin(Stdio::null())
            .output();
        if let Ok(sandboxed) = sandboxed
            && let Ok(version) = String::from_utf8_lossy(&sandboxed.stdout).parse::<Version>()
            && version >= OLDEST
        {
            return Ok(Self {
                qemu: qemu.to_owned(),
                found,
                version,
                sandbox: Path::new(SECCOMP).exists(),
            });
        }
        Self::without_sandbox(qemu, found)
    }

    /// Asks a QEMU for its version alone.
    fn without_sandbox(qemu: &Path, found: Found) -> Result<Self, EngineError> {
        let qemu = qemu.to_owned();
        let output = Command::new(&qemu)
            .arg("--version")
            .stdin(Stdio::null())
            .output();
        let output = match output {
            Ok(output) => output,
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                return Err(EngineError::QemuMissing { qemu });
            }
            Err(source) => return Err(EngineError::QemuUnusable { qemu, source }),
        };
        if !output.status.success() && output.stdout.is_empty() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().next().unwrap_or_default();
            let said = match said.trim() {
                "" => output.status.to_string(),
                said => said.chars().take(MAX_SAID_CHARS).collect(),
            };
            return Err(EngineError::QemuBroken { qemu, said });
        }
        let printed = String::from_utf8_lossy(&output.stdout);
        let Ok(version) = printed.parse::<Version>() else {
            let output = printed.chars().take(80).collect();
            return Err(EngineError::QemuVersion { qemu, output });
        };
        if version < OLDEST {
            let version = version.to_string();
            return Err(EngineError::QemuTooOld { qemu, version });
        }
        Ok(Self {
            qemu,
            found,
            version,
            sandbox: false,
        })
    }

    /// What this QEMU can do.
    fn abilities(&self) -> Abilities {
        Abilities {
            thread_per_vcpu: self.version.threads_vcpus_soundly(),
            sandbox: self.sandbox,
        }
    }

    /// Runs on the machine's thread: starts QEMU, reports its pid or the error, and sees it to its end.
    fn supervise(
        qemu: &Path,
        args: &[OsString],
        child_ends: ChildEnds,
        parts: (Arc<Shared>, Streams),
        started: &mpsc::Sender<Result<u32, LaunchError>>,
        on_event: OnEvent,
    ) {
        let (shared, streams) = parts;
        let start = || {
            let failed = |source| LaunchError::host(format!("start {}", qemu.display()), source);
            let (stdout, stderr) = child_ends.outputs().map_err(failed)?;
            let child = process::spawn(qemu, args, &child_ends.fds().all(), (stdout, stderr));
            // QEMU has its copies now.
            drop(child_ends);
            let child = child.map_err(failed)?;
            let pid = child.id();
            let supervisor = Supervisor::new(shared, streams, child, on_event).map_err(failed)?;
            Ok((pid, supervisor))
        };
        match start() {
            Ok((pid, supervisor)) => {
                // `launch` waits for this; it is gone only if its thread was.
                let _ = started.send(Ok(pid));
                supervisor.run();
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        }
    }
}

impl Engine for TcgEngine {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> String {
        let threads = if self.version.threads_vcpus_soundly() {
            "one emulation thread per CPU"
        } else {
            "one emulation thread"
        };
        let place = match self.found {
            Found::Named => " of KTSTR_QEMU",
            Found::OnPath => " on PATH",
            Found::InCache => " of the cache",
        };
        let sandbox = if self.sandbox {
            ""
        } else {
            ", without a sandbox"
        };
        format!("QEMU {}{place}, {threads}{sandbox}", self.version)
    }

    fn emulates_cpus(&self) -> bool {
        true
    }

    fn timing(&self, topology: &Topology) -> TimingSlack {
        let cpus = u64::from(topology.cpu_count());
        if self.version.threads_vcpus_soundly() {
            let host_cpus = thread::available_parallelism().map_or(1, |count| count.get() as u64);
            shared_host(cpus, host_cpus)
        } else {
            round_robin(cpus)
        }
    }

    fn host_cpus(&self, topology: &Topology) -> u32 {
        if self.version.threads_vcpus_soundly() {
            topology.cpu_count()
        } else {
            1
        }
    }

    fn check(&self, spec: &MachineSpec) -> Result<(), SpecError> {
        check_counts(spec)?;
        open_input("the kernel", spec.kernel.boot_file(spec.boot.kaslr)?)?;
        let (_, initrd_bytes) = initrd::open(&spec.initrd)?;
        check_memory(spec, initrd_bytes)?;
        kernel_cmdline(spec)?;
        let lacks = "a KVM, while the `tcg` engine emulates CPUs: use `--engine kvm`";
        performance::check(spec, Some(lacks.to_owned()))
    }

    fn launch(
        &self,
        spec: &MachineSpec,
        on_event: OnEvent,
    ) -> Result<Box<dyn Machine>, LaunchError> {
        self.check(spec)?;
        let node_mib = spec.node_memory_mib();
        let ram = node_mib
            .iter()
            .map(|mib| NodeMemory::new(mib << 20))
            .collect::<io::Result<Vec<_>>>()
            .map_err(|source| LaunchError::host("set up guest RAM", source))?;
        let memory = GuestRam::of_nodes(&ram, &ram_regions(&node_mib))
            .map_err(|error| LaunchError::from(StartError::Memory(error)))?;
        let initrd = initrd::concatenate(&spec.initrd)?;
        let devices = (0..).zip(&spec.devices);
        let devices: io::Result<_> = devices
            .map(|(index, device)| device.qemu(&format!("device{index}")))
            .collect();
        let devices = devices.map_err(|source| LaunchError::host("make a device", source))?;
        let no_streams = |source| LaunchError::host("make the machine's streams", source);
        let (host_ends, child_ends) =
            streams::pairs(ram, initrd, devices, spec).map_err(no_streams)?;
        let control = host_ends.qmp.try_clone().map_err(no_streams)?;
        let mut timed = spec.clone();
        let rate = tsc::host_tsc_khz();
        timed
            .cmdline
            .extend(rate.map(|khz| format!("tsc_early_khz={khz}")));
        let args = qemu_args(
            &timed,
            self.abilities(),
            &child_ends.fds(),
            child_ends.devices(),
        )?;
        let shared = Shared::new(host_ends.pause)
            .map_err(|source| LaunchError::host("make an event fd", source))?;
        let streams = Streams {
            qmp: host_ends.qmp,
            com1: host_ends.com1,
            com2: host_ends.com2,
            stderr: host_ends.stderr,
        };
        let (sender, started) = mpsc::channel();
        let parts = (shared.clone(), streams);
        let qemu = self.qemu.clone();
        let thread = thread::Builder::new()
            .name("machine".to_owned())
            .spawn(move || Self::supervise(&qemu, &args, child_ends, parts, &sender, on_event))
            .map_err(|source| LaunchError::host("start the machine's thread", source))?;
        let pid = started.recv().unwrap_or_else(|_| {
            let gone = io::Error::other("its thread ended early");
            Err(LaunchError::host("start QEMU", gone))
        })?;
        Ok(Box::new(TcgMachine {
            pid,
            memory,
            control: Control::new(shared.clone(), control),
            shared,
            shell: host_ends.shell,
            frames: Some(host_ends.frames),
            cpu_count: spec.topology.cpu_count(),
            has_thread_per_vcpu: self.abilities().thread_per_vcpu,
            pauses: Pauses::default(),
            thread: MachineThread::new(thread),
        }))
    }
}

fn check_counts(spec: &MachineSpec) -> Result<(), SpecError> {
    let cpus = spec.topology.cpu_count();
    if cpus > MAX_CPUS {
        return Err(SpecError::TooManyCpus {
            cpus,
            engine: NAME,
            max: MAX_CPUS,
        });
    }
    let nodes = u32::try_from(spec.numa.nodes().len()).unwrap_or(u32::MAX);
    if nodes > MAX_NODES {
        return Err(SpecError::TooManyNodes {
            nodes,
            engine: NAME,
            max: MAX_NODES,
        });
    }
    Ok(())
}

/// All vCPUs take turns on one host thread. The gap is the longest possible; a vCPU's timer interrupts
/// usually end the turns of the others within a tick, so that in practice it stands still for 8 to 14 ms
/// for each of the others. The spread is at least twice what equal spinning CPUs show (6 % with 2 CPUs, 15 %
/// with 4, 45 % with 8).
fn round_robin(cpus: u64) -> TimingSlack {
    let others = cpus - 1;
    TimingSlack {
        gap_ms: KICK_PERIOD_MS * others + HOST_SLACK_MS,
        spread_pct: (0..others).fold(10.0, |pct, _| pct + 12.0),
        why: match others {
            0 => "QEMU emulates the CPU on one host thread, which the host may keep waiting"
                .to_owned(),
            _ => format!(
                "QEMU emulates the {cpus} CPUs in turns of up to {KICK_PERIOD_MS} ms on one host thread"
            ),
        },
    }
}

/// Each vCPU has a host thread; they share the host's CPUs.
fn shared_host(cpus: u64, host_cpus: u64) -> TimingSlack {
    let waiting = cpus.div_ceil(host_cpus) - 1;
    TimingSlack {
        gap_ms: HOST_SLACK_MS * (waiting + 1),
        spread_pct: if waiting > 0 { 25.0 } else { 10.0 },
        why: format!("QEMU emulates {cpus} CPUs on {host_cpus} CPUs of the host"),
    }
}
