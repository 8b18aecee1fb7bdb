//! What a kernel must have to run a test, and what tests miss without.

use std::fmt;

use crate::config::{KernelConfig, OptionState};

/// One option that is not set as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The option, with `CONFIG_`.
    pub option: &'static str,
    /// What doesn't work without it, in words.
    pub consequence: &'static str,
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.option, self.consequence)
    }
}

/// What was found out about a kernel before it is booted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirements {
    /// The kernel's options are not known, so that only the drivers that can be modules were looked for.
    pub unchecked: bool,
    /// It can't boot a test without these.
    pub missing: Vec<Requirement>,
    /// Tests run, but lose something.
    pub warnings: Vec<Requirement>,
}

impl Requirements {
    /// Nothing is known to be missing that a test can't do without.
    pub fn can_boot(&self) -> bool {
        self.missing.is_empty()
    }
}

/// One line for each thing, the worst first; nothing for a kernel that has it all.
impl fmt::Display for Requirements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.unchecked {
            writeln!(
                f,
                "not checked: the kernel's options are not known (it was built without CONFIG_IKCONFIG and no \
                 config file lies beside it)"
            )?;
        }
        for requirement in &self.missing {
            writeln!(f, "missing {requirement}")?;
        }
        for requirement in &self.warnings {
            writeln!(f, "warning {requirement}")?;
        }
        Ok(())
    }
}

/// How an option may be set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    BuiltIn,
    /// `=y`, or `=m` with the module's file (by this name) at hand.
    Loadable(&'static str, Marker),
}

/// Text of a driver that an image has exactly if the driver is built in.
type Marker = &'static [u8];

use Want::{BuiltIn, Loadable};

/// Nothing runs without these: the option, how it may be set, what is lost.
const NEEDED: [(&str, Want, &str); 16] = [
    (
        "CONFIG_64BIT",
        BuiltIn,
        "the test binary is a 64-bit program and can't be run",
    ),
    ("CONFIG_TTY", BuiltIn, "there are no consoles"),
    (
        "CONFIG_PRINTK",
        BuiltIn,
        "the kernel prints nothing, so a crash can't be seen",
    ),
    (
        "CONFIG_SERIAL_8250_CONSOLE",
        BuiltIn,
        "the kernel's console on COM1 stays silent, so a crash can't be seen",
    ),
    (
        "CONFIG_PCI",
        BuiltIn,
        "the machine's devices are on PCI and are not found",
    ),
    (
        "CONFIG_VIRTIO_PCI",
        // The driver's name, in virtio_pci_common.c.
        Loadable("virtio_pci", b"virtio-pci\0"),
        "the virtio console isn't found, so no result can come back",
    ),
    (
        "CONFIG_VIRTIO_CONSOLE",
        // The name that add_port() of virtio_console.c gives to devices.
        Loadable("virtio_console", b"vport%up%u"),
        "the virtio console isn't driven, so no result can come back",
    ),
    (
        "CONFIG_ACPI",
        BuiltIn,
        "CPUs, NUMA nodes and the power button are not found",
    ),
    (
        "CONFIG_BLK_DEV_INITRD",
        BuiltIn,
        "the initramfs with the test in it isn't unpacked",
    ),
    ("CONFIG_BINFMT_ELF", BuiltIn, "the test binary can't be run"),
    (
        "CONFIG_DEVTMPFS",
        BuiltIn,
        "there are no device files to open",
    ),
    ("CONFIG_PROC_FS", BuiltIn, "there is no /proc"),
    ("CONFIG_SYSFS", BuiltIn, "there is no /sys"),
    ("CONFIG_TMPFS", BuiltIn, "there is no /tmp and no /dev/shm"),
    (
        "CONFIG_CGROUPS",
        BuiltIn,
        "workers can't be put into cgroups",
    ),
    ("CONFIG_CPUSETS", BuiltIn, "cgroups can't be bound to CPUs"),
];

/// Tests run without these, but see less.
const WANTED: [(&str, &str); 12] = [
    (
        "CONFIG_SMP",
        "the machine has one CPU, whatever the test declares",
    ),
    (
        "CONFIG_NUMA",
        "the machine has one NUMA node, whatever the test declares",
    ),
    (
        "CONFIG_SCHED_CLASS_EXT",
        "sched_ext schedulers can't be loaded",
    ),
    ("CONFIG_BPF_SYSCALL", "BPF programs can't be loaded"),
    (
        "CONFIG_DEBUG_INFO_BTF",
        "there is no type information, so BPF schedulers can't be loaded and the monitor can't read the kernel",
    ),
    ("CONFIG_FAIR_GROUP_SCHED", "cgroups have no cpu.weight"),
    ("CONFIG_CFS_BANDWIDTH", "cgroups have no cpu.max"),
    ("CONFIG_MEMCG", "cgroups have no memory limits"),
    (
        "CONFIG_PSI",
        "pressure (cpu.pressure and its siblings) can't be read",
    ),
    (
        "CONFIG_SCHEDSTATS",
        "run delays and wake-up counters are zero",
    ),
    ("CONFIG_SCHED_INFO", "run delays of workers can't be read"),
    (
        "CONFIG_KALLSYMS",
        "the kernel's symbols are not known, so the monitor can't read it",
    ),
];

/// Compares a config with what tests need. `has_module` says whether a module's file is at hand.
pub fn check(config: Option<&KernelConfig>, has_module: impl Fn(&str) -> bool) -> Requirements {
    let Some(config) = config.filter(|config| !config.is_empty()) else {
        return Requirements {
            unchecked: true,
            ..Requirements::default()
        };
    };
    let missing = NEEDED
        .iter()
        .filter(|(option, want, _)| match (config.state(option), want) {
            (OptionState::BuiltIn, _) => false,
            (OptionState::Module, Loadable(module, _)) => !has_module(module),
            _ => true,
        });
    let wanted = WANTED
        .iter()
        .filter(|(option, _)| config.state(option) == OptionState::Absent);
    Requirements {
        unchecked: false,
        missing: missing
            .map(|&(option, _, consequence)| Requirement {
                option,
                consequence,
            })
            .collect(),
        warnings: wanted
            .map(|&(option, consequence)| Requirement {
                option,
                consequence,
            })
            .collect(),
    }
}

/// The same for a kernel whose options are not known: whether what can be a module is in the image, or at hand as
/// a file. `in_image` says whether the image has a text.
pub(crate) fn check_image(
    in_image: impl Fn(&[u8]) -> bool,
    has_module: impl Fn(&str) -> bool,
) -> Requirements {
    let missing = NEEDED
        .iter()
        .filter_map(|&(option, want, consequence)| match want {
            Loadable(module, marker) if !has_module(module) && !in_image(marker) => {
                Some(Requirement {
                    option,
                    consequence,
                })
            }
            _ => None,
        });
    Requirements {
        unchecked: true,
        missing: missing.collect(),
        warnings: Vec::new(),
    }
}

/// The modules that must be loaded before the console works, in no order. Without a config: those that there are
/// files of.
pub(crate) fn boot_modules(
    config: Option<&KernelConfig>,
    has_module: impl Fn(&str) -> bool,
) -> Vec<&'static str> {
    let modules = NEEDED.iter().filter_map(|&(option, want, _)| match want {
        Loadable(module, _) => Some((option, module)),
        BuiltIn => None,
    });
    modules
        .filter(|(option, module)| match config {
            Some(config) => config.state(option) == OptionState::Module,
            None => has_module(module),
        })
        .map(|(_, module)| module)
        .collect()
}
