//! Starting microVMs.

use std::fs::{self, File};
use std::io;
use std::sync::Arc;
use std::thread;

use ktstr_report::TimingSlack;
use ktstr_topology::Topology;
use ktstr_vmm::{BootSource, NodeMemory, PortKind, Unusable, VmConfig, can_dedicate};

use super::machine::KvmMachine;
use super::watcher::{Shared, Watcher};
use crate::cmdline;
use crate::end_cell::MachineThread;
use crate::engine::{Engine, EngineOptions, LaunchError, MachineEvent, OnEvent};
use crate::initrd;
use crate::limits::check_memory;
use crate::machine::Machine;
use crate::performance;
use crate::spec::{MachineSpec, SpecError, open_input};

const NAME: &str = "kvm";

/// How long the host's own scheduler may keep a vCPU's thread waiting, for each round of vCPUs that share
/// its CPUs.
const HOST_SLACK_MS: u64 = 50;

/// What performance mode misses on some hosts.
const NO_EXITS: &str = "a KVM that lets a guest halt and pause without leaving it (KVM_CAP_X86_DISABLE_EXITS), \
                        which this host's does not: it may be kept from it by `mitigate_smt_rsb`";

/// Options that every guest gets. As for `tcg`, but for what an emulated clock needs.
const BASE_OPTIONS: &[&str] = &[
    // The console, and what is printed on it: warnings and worse, so that WARN and BUG arrive.
    "console=ttyS0",
    "loglevel=5",
    // A panic ends the machine at once, by the keyboard controller's reset line.
    "panic=-1",
    "reboot=k",
    "cryptomgr.notests",
];

/// For a guest that shares a host CPU with others: its CPUs come up one after the other. In parallel, which
/// is the default, all of them spin until it is their turn, and take their time from the one they wait for.
const SERIAL_BRING_UP: &str = "cpuhp.parallel=0";

/// For a guest on a host that trusts its own time-stamp counter: so can the guest. By itself a kernel
/// takes the counters of several packages for unsynchronized where the CPU does not say otherwise.
const TRUSTED_TSC: &str = "tsc=reliable";

/// What the host keeps its time by.
const HOST_CLOCK: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// The host's KVM, known to run a kernel.
#[derive(Debug)]
pub(crate) struct KvmEngine {
    apic_id_llc_bit: u32,
    max_vcpus: u32,
    /// CPUs of the host that this process may use.
    host_cpus: u32,
    /// Whether the host keeps its time by its time-stamp counter.
    trusts_tsc: bool,
}

impl KvmEngine {
    /// Probes the host's KVM with a tiny guest.
    pub(crate) fn probe(options: &EngineOptions) -> Result<Self, Unusable> {
        let usable = ktstr_vmm::probe()?;
        Ok(Self {
            apic_id_llc_bit: options.apic_id_llc_bit,
            max_vcpus: u32::try_from(usable.max_vcpus).unwrap_or(u32::MAX),
            host_cpus: thread::available_parallelism()
                .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
            trusts_tsc: fs::read_to_string(HOST_CLOCK).is_ok_and(|clock| clock.trim() == "tsc"),
        })
    }

    /// Checks `spec`, and opens each of its files once.
    fn inputs(&self, spec: &MachineSpec) -> Result<Inputs, SpecError> {
        let cpus = spec.topology.cpu_count();
        if cpus > self.max_vcpus {
            return Err(SpecError::TooManyCpus {
                cpus,
                engine: NAME,
                max: self.max_vcpus,
            });
        }
        let (kernel, _) = open_input("the kernel", spec.kernel.any_file(spec.boot.kaslr)?)?;
        let (initrd, initrd_bytes) = initrd::open(&spec.initrd)?;
        check_memory(spec, initrd_bytes)?;
        let cmdline = self.cmdline(spec)?;
        let lacks = spec.boot.performance_mode && !can_dedicate();
        performance::check(spec, lacks.then(|| NO_EXITS.to_owned()))?;
        Ok(Inputs {
            kernel,
            initrd,
            cmdline,
        })
    }

    /// The kernel command line: the options for the guest on this host, then the machine's own.
    fn cmdline(&self, spec: &MachineSpec) -> Result<String, SpecError> {
        let mut options = BASE_OPTIONS.to_vec();
        if spec.topology.cpu_count() > self.host_cpus {
            options.push(SERIAL_BRING_UP);
        }
        if self.trusts_tsc {
            options.push(TRUSTED_TSC);
        }
        cmdline::join(&options, spec)
    }
}

impl Engine for KvmEngine {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> String {
        format!(
            "our own microVM on this host's KVM, up to {} CPUs",
            self.max_vcpus
        )
    }

    fn emulates_cpus(&self) -> bool {
        false
    }

    fn timing(&self, topology: &Topology) -> TimingSlack {
        let cpus = u64::from(topology.cpu_count());
        let host_cpus = u64::from(self.host_cpus);
        let waiting = cpus.div_ceil(host_cpus) - 1;
        TimingSlack {
            gap_ms: HOST_SLACK_MS * (waiting + 1),
            spread_pct: if waiting > 0 { 25.0 } else { 5.0 },
            why: format!("KVM runs {cpus} CPUs on {host_cpus} CPUs of the host"),
        }
    }

    fn check(&self, spec: &MachineSpec) -> Result<(), SpecError> {
        self.inputs(spec).map(drop)
    }

    fn launch(
        &self,
        spec: &MachineSpec,
        on_event: OnEvent,
    ) -> Result<Box<dyn Machine>, LaunchError> {
        let inputs = self.inputs(spec)?;
        let host = |action: &'static str| move |source| LaunchError::host(action, source);
        let nodes = ram(spec)?;
        let page_kib = spec
            .boot
            .performance_mode
            .then(|| nodes.first()?.page_kib().ok());
        let mut config = VmConfig::new(spec.topology, nodes)
            .numa(spec.numa.clone())
            .port(1, PortKind::Named(spec.frames_port_name.clone()))
            .dedicated(spec.host_cpus.clone())
            .llc_from_apic_id_bit(self.apic_id_llc_bit);
        if spec.interactive_console {
            config = config.port(0, PortKind::Console);
        }
        for device in &spec.devices {
            config = config.device(device.emulated().map_err(host("make a device"))?);
        }
        let mut source = BootSource::new(inputs.kernel).cmdline(inputs.cmdline);
        if spec.immutable_files {
            source = source.immutable_images();
        }
        if let Some(port) = spec.pause_port {
            let on_event = Arc::clone(&on_event);
            let on_pause = Box::new(move || on_event(MachineEvent::Paused));
            config = config.pause_port(port, on_pause);
        }
        for part in inputs.initrd {
            source = source.initrd(part);
        }
        let (sender, ended) = std::sync::mpsc::channel();
        // The watcher has gone only if this machine's start failed.
        let on_vm_end = Box::new(move |end| drop(sender.send(end)));
        let vm = config
            .create()
            .and_then(|created| created.load(source)?.run(on_vm_end))
            .map_err(LaunchError::from)?;
        let performance = performance::described(spec, vm.placements(), page_kib.flatten());
        let shared = Shared::new(vm);
        let thread =
            Watcher::start(&shared, ended, on_event).map_err(host("start the machine's thread"))?;
        Ok(Box::new(KvmMachine::new(
            shared,
            MachineThread::new(thread),
            performance,
        )))
    }
}

/// What a machine is made from, known to be there.
struct Inputs {
    kernel: File,
    initrd: Vec<ktstr_vmm::InitrdPart>,
    cmdline: String,
}

/// RAM of each NUMA node.
fn ram(spec: &MachineSpec) -> Result<Vec<NodeMemory>, LaunchError> {
    let node_mib = spec.node_memory_mib();
    let bytes = node_mib.iter().map(|mib| mib << 20);
    if !spec.boot.performance_mode {
        let nodes: io::Result<_> = bytes.map(NodeMemory::new).collect();
        return nodes.map_err(|source| LaunchError::host("set up guest RAM", source));
    }
    let nodes: io::Result<_> = bytes.map(NodeMemory::huge).collect();
    // There were enough a moment ago.
    nodes.map_err(|source| LaunchError::from(SpecError::HugePagesTaken { source }))
}
