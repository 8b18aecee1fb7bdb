//! Whether this host's KVM can run a kernel. That /dev/kvm opens says little: there are KVMs that emulate
//! ring 0 in software and give up on instructions that every kernel needs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ktstr_topology::Topology;
use kvm_ioctls::{Cap, Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{GuestMemoryError, GuestMemoryMmap};
use vmm_sys_util::signal::{Killable, SIGRTMIN, unblock_signal};

use crate::arch::cpu_ids::CpuIds;
use crate::arch::probe_guest::{self as guest, ProbeStage};
use crate::arch::vm::{self, Interrupts};
use crate::arch::{ram, vcpu};
use crate::interrupt::line;
use crate::kick::install_kick_handler;
use crate::kvm_error::{Refused, VcpuError, refused};
use crate::kvm_run::internal_error;
use crate::memory::{self, MemoryError, NodeMemory};

/// How long the guest may run. A real KVM needs a few milliseconds; the rest is for a host that is too busy to
/// give it any time.
const TIME_BOUND: Duration = Duration::from_secs(3);

/// How often it is looked whether the guest crawls.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How many times slower than this process the guest may count. A KVM that runs guests on the CPU is as fast; one
/// that emulates them is slower by a hundred times and more.
const MAX_TIMES_SLOWER: u128 = 20;

/// How long a vCPU may take to return after it was interrupted, on a busy host too.
const KICK_BOUND: Duration = Duration::from_secs(3);

/// What a microVM can't do without.
const CAPABILITIES: [(Cap, &str); 7] = [
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::SignalMsi, "KVM_CAP_SIGNAL_MSI"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::AdjustClock, "KVM_CAP_ADJUST_CLOCK"),
];

/// A KVM that ran the probe's guest.
#[derive(Clone, Copy, Debug)]
pub struct Usable {
    /// Most vCPUs of a machine.
    pub max_vcpus: usize,
    /// Time that the guest took, from the first vCPU's start to its verdict.
    pub guest_time: Duration,
}

/// Why this host's KVM can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unusable {
    /// No access.
    #[error("/dev/kvm can't be opened: {source}{}", way_in(source))]
    Open { source: kvm_ioctls::Error },
    /// Not the KVM that has been stable since Linux 2.6.22.
    #[error("/dev/kvm speaks version {version} of its interface, not 12")]
    Version { version: i32 },
    /// Something is missing.
    #[error("/dev/kvm lacks {capability}")]
    Capability {
        /// Its name in linux/kvm.h.
        capability: &'static str,
    },
    /// It refused to make a virtual machine.
    #[error("KVM refused to {action}: {source}")]
    Refused {
        action: &'static str,
        source: kvm_ioctls::Error,
    },
    /// It refused to set up a vCPU.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// No memory for the guest.
    #[error("no memory for a tiny guest: {0}")]
    Memory(#[from] MemoryError),
    /// The guest's memory can't be written.
    #[error("a tiny guest can't be loaded: {0}")]
    Load(#[from] GuestMemoryError),
    /// A thread can't be started.
    #[error("a tiny guest can't be started: {0}")]
    Thread(#[from] std::io::Error),
    /// The guest did not come through.
    #[error("it can't run a kernel: {stage} failed ({reason})")]
    Guest {
        /// Where it stopped.
        stage: ProbeStage,
        /// What KVM said.
        reason: String,
    },
    /// The guest took too long.
    #[error("it can't run a kernel: {stage} was not done within {} ms", bound.as_millis())]
    Late {
        stage: ProbeStage,
        /// How long it was given.
        bound: Duration,
    },
    /// The guest is emulated.
    #[error(
        "it can't run a kernel in any useful time: a guest counts {times} times slower than the host"
    )]
    TooSlow { times: u128 },
    /// A vCPU can't be interrupted. Its thread is left alone.
    #[error("it can't run a kernel: a vCPU that was interrupted at {stage} does not return")]
    Stuck { stage: ProbeStage },
}

impl Unusable {
    /// Whether this user may not open the device, while another may.
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Open { source } if is_permission(source))
    }
}

fn is_permission(error: &kvm_ioctls::Error) -> bool {
    matches!(error.errno(), nix::libc::EACCES | nix::libc::EPERM)
}

/// What lets a user open the device.
fn way_in(error: &kvm_ioctls::Error) -> String {
    if !is_permission(error) {
        return String::new();
    }
    let mode = fs::metadata("/dev/kvm").map(|device| device.permissions().mode() & 0o777);
    let mode = mode.map_or_else(|_| "unknown".to_owned(), |mode| format!("{mode:04o}"));
    format!(
        "; it takes permission to read and write it, and its mode is {mode}: join the group `kvm` (`usermod -aG kvm \
         USER` as root, then log in again), and if the mode is not 0660, `chgrp kvm /dev/kvm` and `chmod 0660 /dev/kvm`"
    )
}

impl From<Refused> for Unusable {
    fn from(Refused { action, source }: Refused) -> Self {
        Self::Refused { action, source }
    }
}

/// Runs a tiny guest in 64-bit mode, ring 0, on two vCPUs, and tells whether it came through. The guest's machine
/// is made as a microVM is, with everything that one needs of KVM. The answer comes within 100 ms, unless the host
/// has no CPU time for the guest.
pub fn probe() -> Result<Usable, Unusable> {
    let kvm = Kvm::new().map_err(|source| Unusable::Open { source })?;
    let version = kvm.get_api_version();
    if version != 12 {
        return Err(Unusable::Version { version });
    }
    for (capability, name) in CAPABILITIES {
        if !kvm.check_extension(capability) {
            return Err(Unusable::Capability { capability: name });
        }
    }
    Ok(Usable {
        max_vcpus: kvm.get_max_vcpus(),
        guest_time: run(&kvm)?,
    })
}

/// The guest's machine. Each thread holds it, so that a thread that can't be ended has its memory.
struct Machine {
    // Closed before the memory is unmapped: fields are dropped in this order.
    _vm: VmFd,
    memory: GuestMemoryMmap,
    /// Rate of the guest's TSC, if KVM tells.
    tsc_khz: Option<u32>,
    stop: AtomicBool,
}

fn run(kvm: &Kvm) -> Result<Duration, Unusable> {
    install_kick_handler()?;
    let (machine, vcpus) = set_up(kvm)?;
    let (verdict, verdicts) = mpsc::channel();
    let start = Instant::now();
    let mut threads = Vec::new();
    for fd in vcpus {
        let thread = thread::Builder::new()
            .name("ktstr-probe".to_owned())
            .spawn({
                let machine = Arc::clone(&machine);
                let verdict = verdict.clone();
                move || run_vcpu(fd, &machine, &verdict)
            });
        match thread {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                stop(&machine, threads);
                return Err(error.into());
            }
        }
    }
    drop(verdict);
    let result = judge(&machine, &verdicts);
    let time = start.elapsed();
    let stage = guest::stage(&machine.memory);
    if !stop(&machine, threads) {
        return Err(Unusable::Stuck { stage });
    }
    result.map(|()| time)
}

fn judge(machine: &Machine, verdicts: &Receiver<Result<(), String>>) -> Result<(), Unusable> {
    let piece = Duration::max(own_piece(), Duration::from_nanos(1));
    let until = Instant::now() + TIME_BOUND;
    loop {
        let verdict = verdicts.recv_timeout(LOOK_EVERY);
        let stage = guest::stage(&machine.memory);
        if let Some(guest_piece) = machine.piece() {
            let times = guest_piece.as_nanos() / piece.as_nanos();
            if times > MAX_TIMES_SLOWER {
                return Err(Unusable::TooSlow { times });
            }
        }
        match verdict {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(reason)) => return Err(Unusable::Guest { stage, reason }),
            Err(RecvTimeoutError::Timeout) if Instant::now() < until => {}
            Err(RecvTimeoutError::Timeout) => {
                let bound = TIME_BOUND;
                return Err(Unusable::Late { stage, bound });
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Unusable::Guest {
                    stage,
                    reason: "its vCPUs ended without a word".to_owned(),
                });
            }
        }
    }
}

impl Machine {
    /// Time of the fastest piece of the guest's loop.
    fn piece(&self) -> Option<Duration> {
        let ticks = guest::piece_ticks(&self.memory)?;
        let ns = u128::from(ticks) * 1_000_000 / u128::from(self.tsc_khz?.max(1));
        Some(Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)))
    }
}

/// Time that this process takes for such a piece.
fn own_piece() -> Duration {
    let piece = || {
        let start = Instant::now();
        for round in 0..guest::PIECE_ROUNDS {
            std::hint::black_box(round);
        }
        start.elapsed()
    };
    (0..3).map(|_| piece()).min().unwrap_or_default()
}

fn set_up(kvm: &Kvm) -> Result<(Arc<Machine>, Vec<VcpuFd>), Unusable> {
    let vm = vm::create(kvm, Interrupts::InKernel)?;
    let line = line()?;
    vm::connect_line(&vm, &line, guest::LINE)?;
    let nodes = [NodeMemory::new(guest::RAM_BYTES)?];
    let regions = ram::place(&[guest::RAM_BYTES])?;
    let memory = memory::map(&nodes, &regions)?;
    memory::give_to(&vm, &memory)?;
    guest::write(&memory)?;

    let ids = CpuIds::new(Topology::new(1, 1, 2, 1).unwrap_or(Topology::SINGLE));
    let vcpus = vcpu::create_all::<Unusable>(kvm, &vm, &ids, false)?;
    if let Some(boot_cpu) = vcpus.first() {
        guest::enter(boot_cpu).map_err(refused("enter 64-bit mode"))?;
    }
    vm.get_clock().map_err(refused("tell its clock"))?;
    let tsc_khz = vcpus.first().and_then(|vcpu| vcpu.get_tsc_khz().ok());
    let machine = Machine {
        _vm: vm,
        memory,
        tsc_khz,
        stop: AtomicBool::new(false),
    };
    Ok((Arc::new(machine), vcpus))
}

/// Runs a vCPU until there is a verdict or it is stopped.
fn run_vcpu(mut fd: VcpuFd, machine: &Machine, verdict: &Sender<Result<(), String>>) {
    // As for the vCPUs of a machine.
    let _ = unblock_signal(SIGRTMIN());
    let failed = loop {
        if machine.stop.load(Ordering::Acquire) {
            return;
        }
        match fd.run() {
            Ok(VcpuExit::IoOut(guest::VERDICT_PORT, &[0, ..])) => {
                let _ = verdict.send(Ok(()));
                return;
            }
            Ok(VcpuExit::IoOut(guest::VERDICT_PORT, _)) => {
                break "the result of the instruction was wrong".to_owned();
            }
            Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen) => {}
            Ok(VcpuExit::Shutdown) => break "triple fault".to_owned(),
            Ok(VcpuExit::InternalError) => {
                break internal_error(&mut fd).unwrap_or_else(|| "KVM internal error".to_owned());
            }
            Ok(exit) => break format!("unexpected exit {exit:?}"),
            Err(error) if [nix::libc::EINTR, nix::libc::EAGAIN].contains(&error.errno()) => {}
            Err(error) => break format!("KVM_RUN failed: {error}"),
        }
    };
    // Nobody listens any more if the other vCPU was first.
    let _ = verdict.send(Err(failed));
}

/// Ends the threads; `false` if one of them doesn't come back.
fn stop(machine: &Machine, threads: Vec<JoinHandle<()>>) -> bool {
    machine.stop.store(true, Ordering::Release);
    let until = Instant::now() + KICK_BOUND;
    while !threads.iter().all(JoinHandle::is_finished) {
        if Instant::now() >= until {
            return false;
        }
        for thread in threads.iter().filter(|thread| !thread.is_finished()) {
            // Fails only for a thread that has just ended.
            let _ = thread.kill(SIGRTMIN());
        }
        thread::sleep(Duration::from_micros(200));
    }
    threads.into_iter().all(|thread| thread.join().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_f8_a_device_that_may_not_be_opened_names_the_right_and_the_group() {
        let unusable = |errno| Unusable::Open {
            source: kvm_ioctls::Error::new(errno),
        };
        let denied = unusable(nix::libc::EACCES);
        let text = denied.to_string();
        assert!(denied.is_permission());
        assert!(
            text.contains("takes permission to read and write it, and its mode is "),
            "{text}"
        );
        assert!(
            text.contains("join the group `kvm` (`usermod -aG kvm USER`"),
            "{text}"
        );
        let missing = unusable(nix::libc::ENOENT);
        assert!(!missing.is_permission());
        assert!(!missing.to_string().contains("group"), "{missing}");
    }
}
