//! What a machine is made of.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ktstr_declaration::Boot;
use ktstr_topology::{NumaMemory, Topology};

use crate::devices::Device;

/// Least memory per NUMA node, in MiB. A distribution kernel with its initramfs does not boot in less
/// than about this on node 0.
pub const MIN_NODE_MEMORY_MIB: u64 = 16;

/// A machine to be run.
#[derive(Clone, Debug)]
pub struct MachineSpec {
    /// Its CPUs, caches and nodes.
    pub topology: Topology,
    /// Guest RAM, and NUMA nodes that have nothing else.
    pub numa: NumaMemory,
    /// What to boot.
    pub kernel: BootKernel,
    /// Archives that make up the initramfs, handed over one after the other, each aligned to 4 bytes. The
    /// kernel unpacks several in a row (Documentation/driver-api/early-userspace/buffer-format.rst). Empty
    /// means no initramfs.
    pub initrd: Vec<InitrdPart>,
    /// Files and folders in the initramfs, at most, as far as they are known: each takes at least a page when it is unpacked.
    pub initrd_entries: u64,
    /// How it runs, as a test declares it.
    pub boot: Boot,
    /// Whether the files of kernel and initramfs are never changed in place, as those of our caches: they are
    /// written whole and only ever removed. An engine may then map them instead of copying them; a file
    /// shortened all the same would end this process (SIGBUS).
    pub immutable_files: bool,
    /// Kernel options after the engine's own, so that they win over those.
    pub cmdline: Vec<String>,
    /// Whether a person will type at [`Port::Shell`](crate::Port::Shell). Without it the machine has no
    /// such port.
    pub interactive_console: bool,
    /// What the guest reads in `/sys/class/virtio-ports/vport*/name` of [`Port::Frames`](crate::Port::Frames).
    pub frames_port_name: String,
    /// What else it has.
    pub devices: Vec<Arc<dyn Device>>,
    /// The I/O port by which the guest pauses its whole machine: it puts out a byte there, and by the next instruction one
    /// at the port after it. With `None` it has none.
    pub pause_port: Option<u16>,
    /// Whether the guest's CPUs have AMD-V, for a KVM of its own.
    pub amd_v: bool,
    /// The host CPU of each vCPU, in performance mode.
    pub host_cpus: Vec<u32>,
}

impl MachineSpec {
    /// A machine without initramfs or further options, whose NUMA nodes share `memory_mib` evenly.
    pub fn new(topology: Topology, memory_mib: u64, kernel: BootKernel) -> Self {
        Self {
            topology,
            numa: NumaMemory::uniform(&topology, memory_mib),
            kernel,
            initrd: Vec::new(),
            initrd_entries: 0,
            boot: Boot::DEFAULT,
            immutable_files: false,
            cmdline: Vec::new(),
            interactive_console: false,
            frames_port_name: "frames".to_owned(),
            devices: Vec::new(),
            pause_port: None,
            amd_v: false,
            host_cpus: Vec::new(),
        }
    }

    /// Memory of each NUMA node in MiB, in node order.
    pub fn node_memory_mib(&self) -> Vec<u64> {
        let nodes = self.numa.nodes().iter();
        nodes.map(|node| node.memory_mib).collect()
    }
}

/// The kernel, in the forms in which it is at hand.
#[derive(Clone, Debug, Default)]
pub struct BootKernel {
    /// The bootable image (`vmlinuz`).
    pub bzimage: Option<PathBuf>,
    /// The uncompressed ELF kernel.
    pub vmlinux: Option<PathBuf>,
    /// Whether `vmlinux` has a PVH entry (`CONFIG_PVH`, `XEN_ELFNOTE_PHYS32_ENTRY`), so that it can be
    /// entered directly. That saves the guest the decompression of the image.
    pub pvh: bool,
}

impl SpecError {
    /// Whether this engine or this host can never run such a machine, while another could: nothing is wrong
    /// with the machine.
    pub const fn is_beyond_host(&self) -> bool {
        matches!(
            self,
            Self::TooManyCpus { .. }
                | Self::TooManyNodes { .. }
                | Self::TooMuchMemory { .. }
                | Self::NoPerformanceMode { .. }
        )
    }

    /// Whether the host lacks something at this moment that it may have at another.
    pub const fn is_for_now(&self) -> bool {
        matches!(self, Self::HugePagesTaken { .. })
    }
}

impl BootKernel {
    /// The file an engine loads that knows both PVH and the Linux boot protocol.
    pub(crate) fn boot_file(&self, kaslr: bool) -> Result<&Path, SpecError> {
        match (&self.vmlinux, &self.bzimage) {
            _ if kaslr => self.self_unpacking(),
            (Some(vmlinux), _) if self.pvh => Ok(vmlinux),
            (_, Some(bzimage)) => Ok(bzimage),
            (Some(vmlinux), None) => Err(SpecError::NoEntry {
                vmlinux: vmlinux.clone(),
            }),
            (None, None) => Err(SpecError::NoKernel),
        }
    }

    /// The file an engine loads that enters either kind by itself: the ELF, which needs no decompression,
    /// if there is one.
    pub(crate) fn any_file(&self, kaslr: bool) -> Result<&Path, SpecError> {
        if kaslr {
            return self.self_unpacking();
        }
        let file = self.vmlinux.as_deref().or(self.bzimage.as_deref());
        file.ok_or(SpecError::NoKernel)
    }

    /// The file whose code chooses the kernel's addresses.
    fn self_unpacking(&self) -> Result<&Path, SpecError> {
        self.bzimage.as_deref().ok_or(SpecError::NoKaslr)
    }
}

/// A part of the initramfs.
#[derive(Clone, Debug)]
pub enum InitrdPart {
    /// A file on the host.
    File(PathBuf),
    /// A file on the host that is open, and may have been removed since.
    Open {
        /// Where it was, for messages.
        path: PathBuf,
        /// The file. It is read from its beginning, wherever its offset is.
        file: Arc<File>,
    },
    /// Bytes in memory.
    Bytes(Arc<[u8]>),
}

/// Why a machine can't be built as specified. Found before anything is started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// No file to boot.
    #[error("no kernel to boot: neither a bzImage nor a vmlinux is given")]
    NoKernel,
    /// Only a vmlinux, and it can't be entered.
    #[error(
        "{} has no PVH entry, so it can't be booted directly: give the bzImage, or build the kernel with \
         CONFIG_PVH=y",
        vmlinux.display()
    )]
    NoEntry {
        /// The ELF kernel.
        vmlinux: PathBuf,
    },
    /// No image that can choose addresses.
    #[error(
        "the kernel can't choose its own addresses (KASLR): only a bzImage does, and none is given"
    )]
    NoKaslr,
    /// A file that the machine needs can't be read.
    #[error("can't read {what} {}", path.display())]
    Unreadable {
        /// Its part in the machine: `the kernel`, `the initramfs part`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it can't.
        #[source]
        source: io::Error,
    },
    /// A path without a plain file behind it.
    #[error("{what} {} is not a regular file", path.display())]
    NotAFile {
        /// Its part in the machine.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// More CPUs than the engine has.
    #[error("{cpus} CPUs declared, but the `{engine}` engine runs at most {max}")]
    TooManyCpus {
        /// CPUs of the topology.
        cpus: u32,
        /// The engine's name.
        engine: &'static str,
        /// Its limit.
        max: u32,
    },
    /// More NUMA nodes than the engine has.
    #[error("{nodes} NUMA nodes declared, but the `{engine}` engine has at most {max}")]
    TooManyNodes {
        /// Nodes of the topology.
        nodes: u32,
        /// The engine's name.
        engine: &'static str,
        /// Its limit.
        max: u32,
    },
    /// A node would get no usable memory.
    #[error(
        "{memory_mib} MiB for NUMA node {node} is too little: each node needs at least \
         {MIN_NODE_MEMORY_MIB} MiB; raise memory_mib"
    )]
    TooLittleMemory {
        /// Memory of the node.
        memory_mib: u64,
        /// The node.
        node: usize,
    },
    /// The memory is that of another shape.
    #[error(
        "memory for {described} NUMA nodes with CPUs is described, but the topology has {declared}"
    )]
    NodeCount {
        /// Nodes with CPUs that memory is described for.
        described: u32,
        /// Nodes of the topology.
        declared: u32,
    },
    /// More than the host has.
    #[error(
        "{memory_mib} MiB declared, but this host has {total_mib} MiB of memory in all: lower memory_mib"
    )]
    TooMuchMemory {
        /// Guest RAM declared.
        memory_mib: u64,
        /// `MemTotal` of the host.
        total_mib: u64,
    },
    /// Huge pages that were free when the machine's turn came are gone.
    #[error(
        "huge pages of 2 MiB that were free until another process took them ({source}): let nobody else use \
         them, or raise /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
    )]
    HugePagesTaken {
        /// What the system said.
        source: io::Error,
    },
    /// Parts of performance mode can't be had.
    #[error("performance mode needs {}", missing.join("; and "))]
    NoPerformanceMode {
        /// What is missing, each with what to do.
        missing: Vec<String>,
    },
    /// The initramfs leaves the kernel no room.
    #[error(
        "the initramfs has {initrd_mib} MiB, which does not fit with its unpacked files into {memory_mib} \
         MiB of guest memory: give the nodes {needed_mib} MiB or more together, or leave their memory to memory_mib"
    )]
    InitrdTooLarge {
        /// Size of all parts.
        initrd_mib: u64,
        /// Guest RAM declared.
        memory_mib: u64,
        /// Memory with which it is thought to fit.
        needed_mib: u64,
    },
    /// A kernel option that can't be passed.
    #[error(
        "kernel option {option:?} can't be passed: it is empty or has a control character in it"
    )]
    BadOption {
        /// The option.
        option: String,
    },
    /// More kernel options than the kernel takes.
    #[error(
        "the kernel command line has {len_bytes} bytes; x86 kernels take at most {max_bytes} \
         (COMMAND_LINE_SIZE)"
    )]
    CmdlineTooLong {
        /// Its length.
        len_bytes: usize,
        /// The kernel's limit.
        max_bytes: usize,
    },
}

impl InitrdPart {
    /// Opens the part, if it is a file, and gives its length in bytes; `None` for bytes in memory.
    pub(crate) fn open(&self) -> Result<Option<(File, u64)>, SpecError> {
        const WHAT: &str = "the initramfs part";
        match self {
            Self::File(path) => open_input(WHAT, path).map(Some),
            Self::Open { path, file } => {
                // Opened once more, for an offset of its own; this works for a removed file too.
                let link = format!("/proc/self/fd/{}", file.as_raw_fd());
                let opened = File::open(link).and_then(|file| {
                    let len = file.metadata()?.len();
                    Ok((file, len))
                });
                opened.map(Some).map_err(|source| SpecError::Unreadable {
                    what: WHAT,
                    path: path.clone(),
                    source,
                })
            }
            Self::Bytes(_) => Ok(None),
        }
    }
}

/// Opens a file that the machine needs, and gives its length in bytes.
pub(crate) fn open_input(what: &'static str, path: &Path) -> Result<(File, u64), SpecError> {
    let unreadable = |source| SpecError::Unreadable {
        what,
        path: path.to_owned(),
        source,
    };
    // A FIFO would block the open; so look first.
    let metadata = path.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(SpecError::NotAFile {
            what,
            path: path.to_owned(),
        });
    }
    let file = File::open(path).map_err(unreadable)?;
    Ok((file, metadata.len()))
}
