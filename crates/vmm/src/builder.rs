//! Building a machine and starting it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread;

use ktstr_topology::{NumaMemory, Topology};
use kvm_ioctls::{Kvm, VmFd};
use nix::sys::eventfd::{EfdFlags, EventFd as WakeEvent};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::acpi::{self, AcpiTooLarge};
use crate::arch::boot::{self, BootError, Images, InitrdPart};
use crate::arch::cpu_ids::CpuIds;
use crate::arch::io_apic::IoApic;
use crate::arch::vm::{self, Interrupts, KvmLines, KvmMsi};
use crate::arch::{layout, ram, vcpu};
use crate::devices::Devices;
use crate::devices::pci::PciBus;
use crate::devices::serial::{PATIENCE, SerialPort};
use crate::devices::virtio::console::{Console, PortKind};
use crate::devices::virtio::device::VirtioDevice;
use crate::devices::virtio::pci::{VirtioFunction, VirtioPci};
use crate::devices::virtio::worker::Worker;
use crate::end::End;
use crate::gate::Gate;
use crate::guest_ram::GuestRam;
use crate::interrupt;
use crate::kvm_error::{Refused, VcpuError, refused};
use crate::machine::{MicroVm, Streams};
use crate::memory::{self, MemoryError, NodeMemory};
use crate::setup_times::{SetupTimes, StepClock};
use crate::vcpu::VcpuThreads;

/// Highest APIC id that a machine may have: a message has 15 bits for it (`KVM_FEATURE_MSI_EXT_DEST_ID`).
pub const MAX_APIC_ID: u32 = (1 << 15) - 1;

/// Called exactly once, from a thread of the machine, when the machine has ended and nothing of it is left.
pub type OnEnd = Box<dyn FnOnce(End) + Send>;

/// Why a machine did not start. Nothing of it is left then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// No memory for a node, or memory for none.
    #[error("memory for {given} NUMA nodes is given, but the machine has {declared}")]
    NodeCount {
        /// Pieces of memory.
        given: usize,
        /// Nodes of the machine.
        declared: usize,
    },
    /// A description of nodes that is that of another shape.
    #[error("{described} NUMA nodes with CPUs are described, but the topology has {declared}")]
    CpuNodeCount {
        /// Nodes with CPUs in the description.
        described: u32,
        /// Nodes of the topology.
        declared: u32,
    },
    /// More CPUs, or a sparser shape, than interrupts can be sent to.
    #[error(
        "{topology} need APIC ids up to {highest}, but the highest possible is {MAX_APIC_ID}: declare fewer \
         CPUs"
    )]
    TooManyCpus {
        /// The shape.
        topology: Topology,
        /// The highest id it needs.
        highest: u32,
    },
    /// Not one host CPU for each vCPU.
    #[error("{given} host CPUs for {vcpus} vCPUs: a machine with CPUs of its own needs as many")]
    HostCpus {
        /// Host CPUs.
        given: usize,
        /// CPUs of the topology.
        vcpus: u32,
    },
    /// More CPUs than this KVM allows.
    #[error("{cpus} CPUs declared, but this host's KVM runs at most {max}")]
    KvmCpus {
        /// CPUs of the topology.
        cpus: u32,
        /// KVM's limit.
        max: usize,
    },
    /// KVM refused.
    #[error(
        "KVM refused to {action}; `cargo ktstr doctor` tells whether this host's KVM is usable"
    )]
    Kvm {
        /// What was tried.
        action: &'static str,
        /// Its answer.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// Guest RAM can't be had.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The kernel can't be entered.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Too many CPUs for the tables.
    #[error(transparent)]
    Acpi(#[from] AcpiTooLarge),
    /// A vCPU can't be set up.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// The host refused.
    #[error("can't {action}")]
    Host {
        /// What was tried.
        action: &'static str,
        /// Its answer.
        #[source]
        source: io::Error,
    },
}

impl From<Refused> for StartError {
    fn from(Refused { action, source }: Refused) -> Self {
        Self::Kvm { action, source }
    }
}

/// What a machine is made of.
#[derive(Debug)]
pub struct Builder {
    topology: Topology,
    numa: NumaMemory,
    nodes: Vec<NodeMemory>,
    kernel: File,
    initrd: Vec<InitrdPart>,
    cmdline: String,
    images: Images,
    ports: BTreeMap<u32, PortKind>,
    host_cpus: Vec<u32>,
    llc_from_bit: u32,
}

impl Builder {
    /// A machine of shape `topology` with one piece of memory for each NUMA node, which boots `kernel`: a
    /// bzImage or an ELF vmlinux, told apart by their content.
    pub fn new(topology: Topology, nodes: Vec<NodeMemory>, kernel: File) -> Self {
        Self {
            topology,
            numa: NumaMemory::uniform(&topology, 0),
            nodes,
            kernel,
            initrd: Vec::new(),
            cmdline: String::new(),
            images: Images::default(),
            ports: BTreeMap::new(),
            host_cpus: Vec::new(),
            llc_from_bit: 0,
        }
    }

    /// How far the NUMA nodes are from each other and how fast they are, and nodes without CPUs. How much
    /// memory they have is told by the memory itself. Without this all are equal.
    #[must_use]
    pub fn numa(mut self, numa: NumaMemory) -> Self {
        self.numa = numa;
        self
    }

    /// Appends a part of the initramfs.
    #[must_use]
    pub fn initrd(mut self, part: InitrdPart) -> Self {
        self.initrd.push(part);
        self
    }

    /// The kernel command line, as it is: none of our own is added.
    #[must_use]
    pub fn cmdline(mut self, cmdline: impl Into<String>) -> Self {
        self.cmdline = cmdline.into();
        self
    }

    /// Promises that the files of kernel and initramfs are not changed, shortened least of all, while the
    /// machine lives or its RAM is read. Then guest RAM is made of their pages where it can be, instead of
    /// copies: a start costs less, and what the guest never touches is never read. Were the promise broken, the
    /// guest would see the change, and this process could be killed (SIGBUS) for reading where the file has ended.
    #[must_use]
    pub fn immutable_images(mut self) -> Self {
        self.images = Images::Immutable;
        self
    }

    /// Gives the console a port with this number, below [`MAX_PORTS`](crate::MAX_PORTS). A machine without any has no
    /// console.
    #[must_use]
    pub fn port(mut self, number: u32, kind: PortKind) -> Self {
        self.ports.insert(number, kind);
        self
    }

    /// Gives each vCPU a host CPU for itself: its thread stays there with `SCHED_FIFO`, `hlt` and `pause` don't
    /// leave the guest, and the guest is told so by `KVM_HINTS_REALTIME`. Whatever serves the machine must
    /// have a higher priority: see [`ServicePriority`](crate::ServicePriority).
    #[must_use]
    pub fn dedicated(mut self, host_cpus: Vec<u32>) -> Self {
        self.host_cpus = host_cpus;
        self
    }

    /// Has the number of an LLC begin at this bit of APIC ids, 15 at most, even if fewer do for the CPUs in it. So a
    /// few CPUs can have the ids of many, above 254, for which a machine has other interrupt controllers.
    #[must_use]
    pub fn llc_from_apic_id_bit(mut self, bit: u32) -> Self {
        self.llc_from_bit = bit.min(15);
        self
    }

    /// Starts the machine. `on_end` is dropped uncalled when this fails.
    pub fn start(mut self, on_end: OnEnd) -> Result<MicroVm, StartError> {
        let mut times = SetupTimes::default();
        let mut clock = StepClock::start();
        let ids = self.check()?;
        let kvm = Kvm::new().map_err(refused("open /dev/kvm"))?;
        let cpus = self.topology.cpu_count();
        let max = kvm.get_max_vcpus();
        if cpus as usize > max || ids.highest() as usize >= kvm.get_max_vcpu_id() {
            return Err(StartError::KvmCpus { cpus, max });
        }
        let interrupts = if ids.are_wide() {
            Interrupts::WideIds
        } else {
            Interrupts::InKernel
        };
        let vm = Arc::new(vm::create(&kvm, interrupts)?);
        let dedicated = !self.host_cpus.is_empty();
        if dedicated {
            vm::halt_without_exit(&vm)?;
        }
        times.vm = clock.lap();

        let lens: Vec<_> = self.nodes.iter().map(NodeMemory::len_bytes).collect();
        let regions = ram::place(&lens)?;
        let ram = memory::map(&self.nodes, &regions)?;
        memory::give_to(&vm, &ram)?;
        times.memory = clock.lap();

        let entry = boot::load(
            &ram,
            &regions,
            &mut self.kernel,
            &mut self.initrd,
            self.images,
            &self.cmdline,
        )?;
        times.load = clock.lap();

        let tables = acpi::build(&ids, &self.numa, &regions)?;
        ram.write_slice(&tables, GuestAddress(layout::ACPI))
            .map_err(BootError::Parameters)?;
        times.tables = clock.lap();

        let (devices, streams, worker) = self.devices(&vm, interrupts, &ram)?;
        times.devices = clock.lap();

        let vcpus = vcpu::create_all::<StartError>(&kvm, &vm, &ids, dedicated)?;
        if let Some(boot_cpu) = vcpus.first() {
            vcpu::set_entry(boot_cpu, entry)?;
        }
        let gate = Arc::new(Gate::new(vcpus.len(), worker.wake()));
        let threads = VcpuThreads::start(vcpus, &self.host_cpus, &gate, &devices)
            .map(Arc::new)
            .map_err(host("start the threads of the vCPUs"))?;
        times.vcpus = clock.lap();
        let mut machine = MicroVm {
            gate,
            threads,
            vm,
            ram: GuestRam::new(ram),
            streams,
            times,
            paused_clock: None,
            supervisor: None,
        };
        supervise(&mut machine, devices, worker, on_end)?;
        Ok(machine)
    }

    fn check(&self) -> Result<CpuIds, StartError> {
        let (described, declared) = (self.numa.cpu_nodes(), self.topology.numa_nodes());
        if described != declared {
            return Err(StartError::CpuNodeCount {
                described,
                declared,
            });
        }
        let declared = self.numa.nodes().len();
        if self.nodes.len() != declared {
            return Err(StartError::NodeCount {
                given: self.nodes.len(),
                declared,
            });
        }
        let (given, vcpus) = (self.host_cpus.len(), self.topology.cpu_count());
        if given > 0 && given != vcpus as usize {
            return Err(StartError::HostCpus { given, vcpus });
        }
        let ids = CpuIds::new(self.topology).with_llc_from_bit(self.llc_from_bit);
        if ids.highest() > MAX_APIC_ID {
            return Err(StartError::TooManyCpus {
                topology: self.topology,
                highest: ids.highest(),
            });
        }
        Ok(ids)
    }

    /// All devices with our ends of their streams, and what serves the console.
    fn devices(
        &self,
        vm: &Arc<VmFd>,
        interrupts: Interrupts,
        ram: &GuestMemoryMmap,
    ) -> Result<(Arc<Devices>, Streams, Worker), StartError> {
        let pair = || UnixStream::pair().map_err(host("make a stream for a port"));
        let serial = |irq| -> Result<(Mutex<SerialPort>, UnixStream), StartError> {
            let (guest, ours) = pair()?;
            let event = interrupt::line().map_err(host("make an interrupt line"))?;
            vm::connect_line(vm, &event, irq)?;
            let port =
                SerialPort::new(event, guest, PATIENCE).map_err(host("set up a serial port"))?;
            Ok((Mutex::new(port), ours))
        };
        let (com1, com1_ours) = serial(layout::COM1_IRQ)?;
        let (com2, com2_ours) = serial(layout::COM2_IRQ)?;
        let mut streams = Streams {
            com1: Some(com1_ours),
            com2: Some(com2_ours),
            ports: BTreeMap::new(),
        };
        let wake = WakeEvent::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map(Arc::new)
            .map_err(|errno| host("make an event for the devices")(errno.into()))?;
        let mut bus = VirtioBus {
            pci: PciBus::new(),
            functions: Vec::new(),
            sink: Arc::new(KvmMsi {
                vm: Arc::clone(vm),
                interrupts,
            }),
            wake,
        };
        if !self.ports.is_empty() {
            let mut ports = Vec::new();
            for (&number, kind) in &self.ports {
                let (guest, ours) = pair()?;
                ports.push((number, kind.clone(), guest));
                streams.ports.insert(number, ours);
            }
            bus.add(Console::new(ports).map_err(host("set up the console's ports"))?);
        }
        let worker = Worker::new(bus.functions, ram.clone(), bus.wake);
        let devices = Arc::new(Devices {
            com1,
            com2,
            pci: bus.pci,
            io_apic: (interrupts == Interrupts::WideIds)
                .then(|| Mutex::new(IoApic::new(Box::new(KvmLines(Arc::clone(vm)))))),
        });
        Ok((devices, streams, worker))
    }
}

/// The bus, while devices are added.
struct VirtioBus {
    pci: PciBus,
    functions: Vec<Arc<Mutex<dyn VirtioFunction>>>,
    sink: Arc<KvmMsi>,
    wake: Arc<WakeEvent>,
}

impl VirtioBus {
    fn add(&mut self, device: impl VirtioDevice + 'static) {
        let index = u32::try_from(self.functions.len()).unwrap_or(u32::MAX);
        let sink = Arc::clone(&self.sink);
        let function = VirtioPci::new(device, index, sink, Arc::clone(&self.wake));
        let function = Arc::new(Mutex::new(function));
        self.pci.add(Arc::clone(&function) as _);
        self.functions.push(function);
    }
}

fn host(action: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Host { action, source }
}

/// Starts the machine's thread: it serves the devices, and cleans up after the end.
fn supervise(
    machine: &mut MicroVm,
    devices: Arc<Devices>,
    worker: Worker,
    on_end: OnEnd,
) -> Result<(), StartError> {
    let gate = Arc::clone(&machine.gate);
    let threads = Arc::clone(&machine.threads);
    let supervisor = thread::Builder::new()
        .name("ktstr-vm".to_owned())
        .spawn(move || {
            // A panic has been printed. The machine goes on without a console, and its end is told.
            let _ = catch_unwind(AssertUnwindSafe(|| worker.run(|| gate.has_ended())));
            let end = gate.wait_for_end();
            threads.join();
            let _ = catch_unwind(AssertUnwindSafe(|| worker.finish()));
            drop(worker);
            // The guest's ends of the streams: who reads ours sees them end.
            drop(devices);
            gate.finish();
            on_end(end);
        });
    match supervisor {
        Ok(supervisor) => {
            machine.supervisor = Some(supervisor);
            Ok(())
        }
        Err(error) => {
            machine.gate.end(End::Stopped);
            machine.threads.join();
            Err(host("start the machine's thread")(error))
        }
    }
}
