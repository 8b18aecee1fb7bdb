//! vCPUs: set-up, and the threads that run them.

use std::io;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, Once, OnceLock, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, KVM_MP_STATE_HALTED, Msrs, kvm_cpuid_entry2};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use nix::unistd::gettid;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler, unblock_signal};

use crate::arch::x86_64::apic_id::ApicIds;
use crate::arch::x86_64::{cpuid, layout, msr, regs};
use crate::devices::{Devices, lock};
use crate::end::End;
use crate::gate::{Gate, Order};
use crate::kvm_run::internal_error;
use crate::machine::FirstRun;
use crate::realtime::{self, VcpuPlacement};
use crate::vm::{Refused, refused};

/// The registers of one vCPU that tell where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuRegisters {
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// Root of the page tables, with the PCID bits.
    pub cr3: u64,
    /// RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP, R8 to R15.
    pub gprs: [u64; 16],
    /// Whether the vCPU sleeps in `hlt`.
    pub halted: bool,
}

/// Why a vCPU could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("KVM refused to {action} of vCPU {vcpu}")]
pub struct VcpuError {
    /// The CPU, in the order of the topology.
    pub vcpu: u32,
    /// What was tried.
    pub action: &'static str,
    /// KVM's answer.
    #[source]
    pub source: kvm_ioctls::Error,
}

/// All vCPUs, ready to run; the first is the boot CPU, which starts at `entry`. `dedicated` is what the guest is
/// told of its CPUs.
pub(crate) fn create_all<E: From<Refused> + From<VcpuError>>(
    kvm: &Kvm,
    vm: &VmFd,
    ids: &ApicIds,
    entry: u64,
    dedicated: bool,
) -> Result<Vec<VcpuFd>, E> {
    let supported = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(refused("tell the CPUID leaves that it supports"))?;
    let mut vcpus = Vec::new();
    for cpu in 0..ids.topology().cpu_count() {
        // KVM takes the vCPU's id as its APIC id.
        let fd = vm
            .create_vcpu(u64::from(ids.id(cpu)))
            .map_err(refused("create a vCPU"))?;
        let leaves = cpuid::build(supported.as_slice(), ids, cpu, dedicated);
        set_up(&fd, cpu, &leaves, (cpu == 0).then_some(entry))?;
        if ids.are_wide() {
            enter_x2apic_mode(&fd, cpu)?;
        }
        vcpus.push(fd);
    }
    Ok(vcpus)
}

/// Gives a vCPU its identity and, if it is the boot CPU, the `entry` it starts at. The others wait for the
/// guest to start them.
fn set_up(
    fd: &VcpuFd,
    vcpu: u32,
    cpuid: &[kvm_cpuid_entry2],
    entry: Option<u64>,
) -> Result<(), VcpuError> {
    let step = |action, result: Result<(), kvm_ioctls::Error>| {
        result.map_err(|source| VcpuError {
            vcpu,
            action,
            source,
        })
    };
    let leaves = CpuId::from_entries(cpuid);
    let leaves = leaves.map_err(|_| kvm_ioctls::Error::new(nix::libc::E2BIG));
    step(
        "set the CPUID",
        leaves.and_then(|leaves| fd.set_cpuid2(&leaves)),
    )?;
    let msrs = Msrs::from_entries(&msr::boot_msrs());
    let msrs = msrs.map_err(|_| kvm_ioctls::Error::new(nix::libc::E2BIG));
    step(
        "set the model-specific registers",
        msrs.and_then(|msrs| fd.set_msrs(&msrs)).map(|_| ()),
    )?;
    step("set the FPU state", fd.set_fpu(&regs::fpu()))?;
    if let Some(entry) = entry {
        let sregs = fd.get_sregs().and_then(|mut sregs| {
            regs::long_mode(&mut sregs);
            fd.set_sregs(&sregs)
        });
        step("set the system registers", sregs)?;
        let regs = regs::entry(entry, layout::ZERO_PAGE);
        step("set the registers", fd.set_regs(&regs))?;
    }
    Ok(())
}

/// As firmware leaves a CPU of a machine whose ids xAPIC mode can't express: a kernel that finds its boot CPU in
/// that mode passes over the others.
fn enter_x2apic_mode(fd: &VcpuFd, vcpu: u32) -> Result<(), VcpuError> {
    let entered = fd.get_sregs().and_then(|mut sregs| {
        sregs.apic_base |= regs::APIC_BASE_X2APIC;
        fd.set_sregs(&sregs)
    });
    entered.map_err(|source| VcpuError {
        vcpu,
        action: "set the APIC's mode",
        source,
    })
}

/// The running threads of a machine's vCPUs. They end when the gate says so, and are joined by
/// [`Self::join`].
#[derive(Debug)]
pub(crate) struct VcpuThreads {
    threads: Mutex<Vec<JoinHandle<()>>>,
    tids: Arc<[AtomicI32]>,
    first_run: Arc<OnceLock<FirstRun>>,
    placements: Vec<VcpuPlacement>,
}

impl VcpuThreads {
    /// Starts a thread for each of `vcpus`, on its one of `host_cpus` unless that is empty. If one can't be started, the others are ended and joined.
    pub(crate) fn start(
        vcpus: Vec<VcpuFd>,
        host_cpus: &[u32],
        gate: &Arc<Gate>,
        devices: &Arc<Devices>,
    ) -> io::Result<Self> {
        install_kick_handler()?;
        let mut threads = Self {
            threads: Mutex::default(),
            tids: vcpus.iter().map(|_| AtomicI32::new(0)).collect(),
            first_run: Arc::default(),
            placements: Vec::new(),
        };
        for (index, fd) in vcpus.into_iter().enumerate() {
            let vcpu = Vcpu {
                index,
                fd,
                gate: Arc::clone(gate),
                devices: Arc::clone(devices),
                first_run: (index == 0).then(|| Arc::clone(&threads.first_run)),
            };
            let tids = Arc::clone(&threads.tids);
            let host_cpu = host_cpus.get(index).copied();
            let (placed, placement) = mpsc::channel();
            let started = thread::Builder::new()
                .name(format!("ktstr-vcpu{index}"))
                .spawn(move || {
                    tids[index].store(gettid().as_raw(), Ordering::Relaxed);
                    let place = host_cpu.map(realtime::place_vcpu).transpose();
                    let fit = place.is_ok();
                    // Who started this thread waits for it.
                    let _ = placed.send(place);
                    if fit {
                        vcpu.run();
                    }
                })
                .and_then(|thread| {
                    lock(&threads.threads).push(thread);
                    if host_cpu.is_none() {
                        return Ok(None);
                    }
                    let gone = |_| io::Error::other("the thread ended early");
                    placement.recv().map_err(gone)?
                });
            match started {
                Ok(placement) => threads.placements.extend(placement),
                Err(error) => {
                    gate.end(End::Killed);
                    threads.join();
                    return Err(error);
                }
            }
        }
        Ok(threads)
    }

    /// Thread ids, by vCPU.
    pub(crate) fn tids(&self) -> Vec<i32> {
        let load = |tid: &AtomicI32| tid.load(Ordering::Relaxed);
        self.tids.iter().map(load).collect()
    }

    pub(crate) fn first_run(&self) -> Option<FirstRun> {
        self.first_run.get().copied()
    }

    /// Where the threads run, if they were given host CPUs.
    pub(crate) fn placements(&self) -> &[VcpuPlacement] {
        &self.placements
    }

    /// Gets all threads out of the guest, so that they look at the gate. A kick that comes just before a
    /// thread enters the guest is lost: the caller repeats it until it sees the effect.
    pub(crate) fn kick(&self) {
        for thread in lock(&self.threads).iter() {
            if !thread.is_finished() {
                // Fails only for a thread that has just ended.
                let _ = thread.kill(SIGRTMIN());
            }
        }
    }

    /// Waits until all threads have ended, which the gate must have told them.
    pub(crate) fn join(&self) {
        let mut pause = Duration::from_micros(100);
        while !lock(&self.threads).iter().all(JoinHandle::is_finished) {
            self.kick();
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
        for thread in lock(&self.threads).drain(..) {
            // A panic was noted as the machine's end.
            let _ = thread.join();
        }
    }
}

/// The handler does nothing: that the signal is caught makes `KVM_RUN` return.
pub(crate) fn install_kick_handler() -> io::Result<()> {
    extern "C" fn kicked(
        _: nix::libc::c_int,
        _: *mut nix::libc::siginfo_t,
        _: *mut nix::libc::c_void,
    ) {
    }
    static INSTALL: Once = Once::new();
    let mut result = Ok(());
    INSTALL.call_once(|| {
        result = register_signal_handler(SIGRTMIN(), kicked)
            .map_err(|error| io::Error::from_raw_os_error(error.errno()));
    });
    result
}

struct Vcpu {
    index: usize,
    fd: VcpuFd,
    gate: Arc<Gate>,
    devices: Arc<Devices>,
    /// To be set by the boot CPU.
    first_run: Option<Arc<OnceLock<FirstRun>>>,
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        if thread::panicking() {
            self.gate.end(End::Broken {
                vcpu: self.number(),
                rip: None,
                reason: "its thread panicked, which is a bug of the microVM".to_owned(),
            });
        }
    }
}

impl Vcpu {
    fn run(mut self) {
        // The thread that started this one may have blocked it. Without it a kick would not arrive.
        let _ = unblock_signal(SIGRTMIN());
        if let Some(first_run) = self.first_run.take() {
            first_run.get_or_init(FirstRun::now);
        }
        loop {
            match self.gate.order() {
                Order::Run => {}
                Order::Park => {
                    self.park();
                    continue;
                }
                Order::Stop => {
                    if let Ok(registers) = self.registers() {
                        self.gate.leave(self.index, registers);
                    }
                    return;
                }
            }
            if let Some(end) = self.run_guest() {
                self.gate.end(end);
                return;
            }
        }
    }

    fn number(&self) -> u32 {
        u32::try_from(self.index).unwrap_or(u32::MAX)
    }

    /// Lets the guest run until it needs us; the machine's end if this is it.
    fn run_guest(&mut self) -> Option<End> {
        let reason = match self.fd.run() {
            Ok(VcpuExit::IoIn(port, data)) => {
                self.devices.port_read(port, data);
                return None;
            }
            Ok(VcpuExit::IoOut(port, data)) => return self.devices.port_write(port, data),
            Ok(VcpuExit::MmioRead(gpa, data)) => {
                self.devices.mmio_read(gpa, data);
                return None;
            }
            Ok(VcpuExit::MmioWrite(gpa, data)) => {
                self.devices.mmio_write(gpa, data);
                return None;
            }
            // Only a level-triggered line has a use for it.
            Ok(VcpuExit::IoapicEoi(_)) => return None,
            // With the local APICs in the kernel these are spurious.
            Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen | VcpuExit::Hlt) => return None,
            Ok(VcpuExit::Shutdown) => {
                return Some(End::TripleFault {
                    vcpu: self.number(),
                    rip: self.rip_unless_reset(),
                });
            }
            Ok(VcpuExit::InternalError) => "KVM internal error".to_owned(),
            Ok(exit) => format!("an exit that this microVM does not handle: {exit:?}"),
            Err(error) if [nix::libc::EINTR, nix::libc::EAGAIN].contains(&error.errno()) => {
                return None;
            }
            Err(error) => format!("KVM_RUN failed: {error}"),
        };
        let reason = internal_error(&mut self.fd).unwrap_or(reason);
        Some(End::Broken {
            vcpu: self.number(),
            rip: self.fd.get_regs().ok().map(|regs| regs.rip),
            reason,
        })
    }

    /// Where a CPU that shut down was, unless KVM has put it into the state of after a reset since.
    fn rip_unless_reset(&self) -> Option<u64> {
        let rip = self.fd.get_regs().ok()?.rip;
        let sregs = self.fd.get_sregs().ok()?;
        let is_reset = sregs.cr0 & regs::CR0_PE == 0 && rip == regs::RESET_RIP;
        (!is_reset).then_some(rip)
    }

    fn park(&mut self) {
        // An access to a device that the guest was in the middle of is completed by entering KVM again.
        self.fd.set_kvm_immediate_exit(1);
        let end = self.run_guest();
        self.fd.set_kvm_immediate_exit(0);
        if let Some(end) = end {
            self.gate.end(end);
            return;
        }
        let registers = self.registers().unwrap_or_default();
        self.gate.park(self.index, registers);
        // Tells the guest that it stood still, so that it doesn't take it for a lockup. Fails where the guest
        // has no kvmclock, and then there is nothing to tell.
        let _ = self.fd.kvmclock_ctrl();
    }

    fn registers(&self) -> Result<VcpuRegisters, kvm_ioctls::Error> {
        let regs = self.fd.get_regs()?;
        let sregs = self.fd.get_sregs()?;
        let state = self.fd.get_mp_state()?;
        Ok(VcpuRegisters {
            rip: regs.rip,
            rflags: regs.rflags,
            cr3: sregs.cr3,
            gprs: [
                regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp, regs.rsp,
                regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
            ],
            halted: state.mp_state == KVM_MP_STATE_HALTED,
        })
    }
}
