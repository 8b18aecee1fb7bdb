//! Starting microVMs.

use std::fs;
use std::io;
use std::sync::Arc;
use std::thread;

use ktstr_topology::Topology;
use ktstr_vmm::{Builder, MAX_APIC_ID, NodeMemory, Unusable, can_dedicate};

use super::machine::KvmMachine;
use super::watcher::{Shared, Watcher};
use crate::cmdline;
use crate::engine::{Engine, LaunchError, OnEnd, TimingQuality};
use crate::initrd;
use crate::limits::check_memory;
use crate::machine::Machine;
use crate::performance;
use crate::spec::{InitrdPart, MachineSpec, SpecError, open_input};

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
    max_vcpus: u32,
    /// Whether the host keeps its time by its time-stamp counter.
    trusts_tsc: bool,
}

impl KvmEngine {
    /// Probes the host's KVM with a tiny guest.
    pub(crate) fn probe() -> Result<Self, Unusable> {
        let usable = ktstr_vmm::probe()?;
        Ok(Self {
            max_vcpus: u32::try_from(usable.max_vcpus).unwrap_or(u32::MAX),
            trusts_tsc: fs::read_to_string(HOST_CLOCK).is_ok_and(|clock| clock.trim() == "tsc"),
        })
    }

    /// The kernel command line: the options for the guest on this host, then the machine's own.
    fn cmdline(&self, spec: &MachineSpec) -> Result<String, SpecError> {
        let mut options = BASE_OPTIONS.to_vec();
        if spec.topology.cpu_count() > host_cpus() {
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

    fn timing(&self, topology: &Topology) -> TimingQuality {
        let cpus = u64::from(topology.cpu_count());
        let host_cpus = u64::from(host_cpus());
        let waiting = cpus.div_ceil(host_cpus) - 1;
        TimingQuality {
            gap_slack_ms: HOST_SLACK_MS * (waiting + 1),
            spread_slack_pct: if waiting > 0 { 25.0 } else { 5.0 },
            why: format!("KVM runs {cpus} CPUs on {host_cpus} CPUs of the host"),
        }
    }

    fn check(&self, spec: &MachineSpec) -> Result<(), SpecError> {
        let cpus = spec.topology.cpu_count();
        let max = self.max_vcpus.min(MAX_APIC_ID);
        if cpus > max {
            return Err(SpecError::TooManyCpus {
                cpus,
                engine: NAME,
                max,
            });
        }
        open_input("the kernel", spec.kernel.any_file(spec.kaslr)?)?;
        check_memory(spec, initrd::total_bytes(&spec.initrd)?)?;
        self.cmdline(spec)?;
        let lacks = spec.performance_mode && !can_dedicate();
        performance::check(spec, lacks.then(|| NO_EXITS.to_owned()))
    }

    fn launch(&self, spec: &MachineSpec, on_end: OnEnd) -> Result<Box<dyn Machine>, LaunchError> {
        self.check(spec)?;
        let (kernel, _) = open_input("the kernel", spec.kernel.any_file(spec.kaslr)?)?;
        let host = |action: &'static str| move |source| LaunchError::host(action, source);
        let nodes = ram(spec)?;
        let page_kib = nodes.first().and_then(|node| node.page_kib().ok());
        let mut builder = Builder::new(spec.topology, nodes, kernel)
            .numa(spec.numa.clone())
            .cmdline(self.cmdline(spec)?)
            .shell(spec.interactive_console)
            .dedicated(spec.host_cpus.clone());
        if spec.immutable_files {
            builder = builder.immutable_images();
        }
        for part in &spec.initrd {
            builder = builder.initrd(match part {
                InitrdPart::File(path) => {
                    ktstr_vmm::InitrdPart::File(open_input("the initramfs part", path)?.0)
                }
                InitrdPart::Bytes(bytes) => ktstr_vmm::InitrdPart::Bytes(Arc::clone(bytes)),
            });
        }
        let (sender, ended) = std::sync::mpsc::channel();
        let vm = builder
            // The watcher has gone only if this machine's start failed.
            .start(Box::new(move |end| drop(sender.send(end))))
            .map_err(LaunchError::from)?;
        let performance = performance::described(spec, vm.placements(), page_kib);
        let shared = Shared::new(vm);
        let thread =
            Watcher::start(&shared, ended, on_end).map_err(host("start the machine's thread"))?;
        Ok(Box::new(KvmMachine::new(shared, thread, performance)))
    }
}

/// RAM of each NUMA node.
fn ram(spec: &MachineSpec) -> Result<Vec<NodeMemory>, LaunchError> {
    let node_mib = spec.node_memory_mib();
    let bytes = node_mib.iter().map(|mib| mib << 20);
    if !spec.performance_mode {
        let nodes: io::Result<_> = bytes.map(NodeMemory::new).collect();
        return nodes.map_err(|source| LaunchError::host("set up guest RAM", source));
    }
    let nodes: io::Result<_> = bytes.map(NodeMemory::huge).collect();
    // There were enough a moment ago.
    nodes.map_err(|source| LaunchError::from(performance::no_pages(&source)))
}

/// CPUs of the host that this process may use.
fn host_cpus() -> u32 {
    thread::available_parallelism()
        .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX))
}
