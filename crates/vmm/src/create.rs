//! The first step of a machine's start: making it, with nothing in its memory.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use ktstr_topology::NumaMemory;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use nix::sys::eventfd::{EfdFlags, EventFd};
use vm_memory::GuestMemoryMmap;

use crate::arch::cpu_ids::CpuIds;
use crate::arch::io_apic::IoApic;
use crate::arch::vm::{self, Interrupts, KvmLines, KvmMsi};
use crate::arch::{layout, ram, vcpu};
use crate::config::VmConfig;
use crate::devices::Devices;
use crate::devices::serial::{HOST_READ_TIMEOUT, SerialPort};
use crate::devices::virtio::bus::VirtioBus;
use crate::devices::virtio::console::{Console, PortKind};
use crate::devices::virtio::device::VirtioDevice;
use crate::devices::virtio::worker::Worker;
use crate::interrupt::line;
use crate::kvm_error::refused;
use crate::machine::Streams;
use crate::memory::{self, NodeMemory, RamRegion};
use crate::pause_port::PausePort;
use crate::setup_times::{SetupTimes, StepClock};
use crate::start_error::{StartError, host};

/// A machine as it leaves the factory: RAM is empty, each vCPU has its identity and nothing to run. What comes
/// next is [`Self::load`].
#[derive(Debug)]
pub struct CreatedVm {
    pub(crate) vcpus: Vec<VcpuFd>,
    pub(crate) vm: Arc<VmFd>,
    pub(crate) ram: GuestMemoryMmap,
    pub(crate) regions: Vec<RamRegion>,
    pub(crate) ids: CpuIds,
    pub(crate) numa: NumaMemory,
    pub(crate) devices: Arc<Devices>,
    pub(crate) worker: Worker,
    pub(crate) streams: Streams,
    pub(crate) host_cpus: Vec<u32>,
    pub(crate) pause_port: Option<PausePort>,
    pub(crate) times: SetupTimes,
}

impl VmConfig {
    /// Makes the machine: the virtual machine in KVM, its RAM, its devices and its vCPUs.
    pub fn create(self) -> Result<CreatedVm, StartError> {
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

        let (devices, streams, worker) =
            make_devices(&self.ports, self.devices, &vm, interrupts, &ram)?;
        times.devices = clock.lap();

        let vcpus = vcpu::create_all::<StartError>(&kvm, &vm, &ids, dedicated)?;
        times.vcpus = clock.lap();
        Ok(CreatedVm {
            vcpus,
            vm,
            ram,
            regions,
            ids,
            numa: self.numa,
            devices,
            worker,
            streams,
            host_cpus: self.host_cpus,
            pause_port: self.pause_port,
            times,
        })
    }
}

/// All devices with our ends of their streams, and what serves the virtio devices.
fn make_devices(
    console_ports: &BTreeMap<u32, PortKind>,
    devices: Vec<Box<dyn VirtioDevice>>,
    vm: &Arc<VmFd>,
    interrupts: Interrupts,
    ram: &GuestMemoryMmap,
) -> Result<(Arc<Devices>, Streams, Worker), StartError> {
    let pair = || UnixStream::pair().map_err(host("make a stream for a port"));
    let serial = |irq| -> Result<(Mutex<SerialPort>, UnixStream), StartError> {
        let (guest, ours) = pair()?;
        let event = line().map_err(host("make an interrupt line"))?;
        vm::connect_line(vm, &event, irq)?;
        let port = SerialPort::new(event, guest, HOST_READ_TIMEOUT)
            .map_err(host("set up a serial port"))?;
        Ok((Mutex::new(port), ours))
    };
    let (com1, com1_ours) = serial(layout::COM1_IRQ)?;
    let (com2, com2_ours) = serial(layout::COM2_IRQ)?;
    let mut streams = Streams {
        com1: Some(com1_ours),
        com2: Some(com2_ours),
        ports: BTreeMap::new(),
    };
    let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map_err(|errno| host("make an event for the devices")(errno.into()))?;
    let sink = Arc::new(KvmMsi {
        vm: Arc::clone(vm),
        interrupts,
    });
    let mut bus = VirtioBus::new(sink, Arc::new(wake));
    if !console_ports.is_empty() {
        let mut ports = Vec::new();
        for (&number, kind) in console_ports {
            let (guest, ours) = pair()?;
            ports.push((number, kind.clone(), guest));
            streams.ports.insert(number, ours);
        }
        let console = Console::new(ports).map_err(host("set up the console's ports"))?;
        bus.add(Box::new(console));
    }
    for device in devices {
        bus.add(device);
    }
    let (pci, worker) = bus.finish(ram.clone());
    let devices = Arc::new(Devices {
        com1,
        com2,
        pci,
        io_apic: (interrupts == Interrupts::WideIds)
            .then(|| Mutex::new(IoApic::new(Box::new(KvmLines(Arc::clone(vm)))))),
    });
    Ok((devices, streams, worker))
}
