//! The threads that run the vCPUs.

use std::io;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kvm_ioctls::{VcpuExit, VcpuFd};
use nix::unistd::gettid;
use vmm_sys_util::signal::{Killable, SIGRTMIN, unblock_signal};

use crate::arch::registers::VcpuRegisters;
use crate::arch::vcpu::{program_counter, program_counter_unless_reset};
use crate::devices::Devices;
use crate::end::End;
use crate::gate::{Gate, Order, Pauser};
use crate::kick::install_kick_handler;
use crate::kvm_run::internal_error;
use crate::lock::lock;
use crate::pause_port::PausePort;
use crate::realtime::{self, VcpuPlacement};
use crate::setup_times::FirstRun;

type Threads = Arc<Mutex<Vec<JoinHandle<()>>>>;

/// The running threads of a machine's vCPUs. They end when the gate says so, and are joined by
/// [`Self::join`].
#[derive(Debug)]
pub(crate) struct VcpuThreads {
    threads: Threads,
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
        pause_port: Option<PausePort>,
    ) -> io::Result<Self> {
        install_kick_handler()?;
        let pause_port = pause_port.map(Arc::new);
        let mut threads = Self {
            threads: Threads::default(),
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
                pause_port: pause_port.clone(),
                siblings: Arc::clone(&threads.threads),
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
                    gate.end(End::Stopped);
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
        kick_all(&self.threads);
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

fn kick_all(threads: &Threads) {
    for thread in lock(threads).iter() {
        if !thread.is_finished() {
            // Fails only for a thread that has just ended.
            let _ = thread.kill(SIGRTMIN());
        }
    }
}

struct Vcpu {
    index: usize,
    fd: VcpuFd,
    gate: Arc<Gate>,
    devices: Arc<Devices>,
    pause_port: Option<Arc<PausePort>>,
    siblings: Threads,
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
                    if let Ok(registers) = VcpuRegisters::read(&self.fd) {
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
            Ok(VcpuExit::IoOut(port, data)) => {
                return match &self.pause_port {
                    Some(pause) if pause.port == port => {
                        self.pause_machine(pause);
                        None
                    }
                    _ => self.devices.port_write(port, data),
                };
            }
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
                    rip: program_counter_unless_reset(&self.fd),
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
            rip: program_counter(&self.fd),
            reason,
        })
    }

    /// This vCPU runs no further instruction; the others are out of the guest as soon as the host's signals reach them.
    /// Who is told makes sure of it.
    fn pause_machine(&self, pause: &PausePort) {
        self.gate.close(Pauser::Guest);
        kick_all(&self.siblings);
        (pause.on_pause)();
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
        let registers = VcpuRegisters::read(&self.fd).unwrap_or_default();
        self.gate.park(self.index, registers);
        // Tells the guest that it stood still, so that it doesn't take it for a lockup. Fails where the guest
        // has no kvmclock, and then there is nothing to tell.
        let _ = self.fd.kvmclock_ctrl();
    }
}
