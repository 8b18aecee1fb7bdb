use ktstr_kernels::{KernelConfig, OptionState, Requirements, check_config};

use crate::path::Scratch;
use crate::synthetic::{RELEASE, elf, module};

/// A kernel that has everything, in the form of a `.config`.
const GOOD: &str = "CONFIG_64BIT=y\nCONFIG_TTY=y\nCONFIG_PRINTK=y\nCONFIG_SERIAL_8250_CONSOLE=y\nCONFIG_PCI=y\n\
    CONFIG_VIRTIO_PCI=y\nCONFIG_VIRTIO_CONSOLE=m\nCONFIG_ACPI=y\nCONFIG_BLK_DEV_INITRD=y\nCONFIG_BINFMT_ELF=y\n\
    CONFIG_DEVTMPFS=y\nCONFIG_PROC_FS=y\nCONFIG_SYSFS=y\nCONFIG_TMPFS=y\nCONFIG_CGROUPS=y\nCONFIG_CPUSETS=y\n\
    CONFIG_SMP=y\nCONFIG_NUMA=y\nCONFIG_SCHED_CLASS_EXT=y\nCONFIG_BPF_SYSCALL=y\nCONFIG_DEBUG_INFO_BTF=y\n\
    CONFIG_FAIR_GROUP_SCHED=y\nCONFIG_CFS_BANDWIDTH=y\nCONFIG_MEMCG=y\nCONFIG_PSI=y\nCONFIG_SCHEDSTATS=y\n\
    CONFIG_SCHED_INFO=y\nCONFIG_KALLSYMS=y\nCONFIG_HZ=250\n";

#[test]
fn options_are_read_as_kconfig_writes_them() {
    let config = KernelConfig::parse(GOOD);
    assert_eq!(config.get("CONFIG_HZ"), Some("250"));
    assert_eq!(config.state("VIRTIO_CONSOLE"), OptionState::Module);
    assert_eq!(config.state("CONFIG_ACPI"), OptionState::BuiltIn);
    assert_eq!(
        KernelConfig::parse("# CONFIG_PSI is not set\n").state("PSI"),
        OptionState::Absent
    );
}

#[test]
fn a_complete_kernel_misses_nothing() {
    let found = check_config(Some(&KernelConfig::parse(GOOD)), |name| {
        name == "virtio_console"
    });
    assert_eq!(found, Requirements::default());
}

#[test]
fn a_module_without_its_file_is_missing() {
    let found = check_config(Some(&KernelConfig::parse(GOOD)), |_| false);
    assert!(!found.can_boot());
    insta::assert_snapshot!(found, @"missing CONFIG_VIRTIO_CONSOLE: the virtio console isn't driven, so no result can come back");
}

#[test]
fn every_option_has_its_consequence() {
    let found = check_config(Some(&KernelConfig::parse("CONFIG_HZ=250\n")), |_| true);
    assert!(!found.can_boot());
    insta::assert_snapshot!(found, @r"
    missing CONFIG_64BIT: the test binary is a 64-bit program and can't be run
    missing CONFIG_TTY: there are no consoles
    missing CONFIG_PRINTK: the kernel prints nothing, so a crash can't be seen
    missing CONFIG_SERIAL_8250_CONSOLE: the kernel's console on COM1 stays silent, so a crash can't be seen
    missing CONFIG_PCI: the machine's devices are on PCI and are not found
    missing CONFIG_VIRTIO_PCI: the virtio console isn't found, so no result can come back
    missing CONFIG_VIRTIO_CONSOLE: the virtio console isn't driven, so no result can come back
    missing CONFIG_ACPI: CPUs, NUMA nodes and the power button are not found
    missing CONFIG_BLK_DEV_INITRD: the initramfs with the test in it isn't unpacked
    missing CONFIG_BINFMT_ELF: the test binary can't be run
    missing CONFIG_DEVTMPFS: there are no device files to open
    missing CONFIG_PROC_FS: there is no /proc
    missing CONFIG_SYSFS: there is no /sys
    missing CONFIG_TMPFS: there is no /tmp and no /dev/shm
    missing CONFIG_CGROUPS: workers can't be put into cgroups
    missing CONFIG_CPUSETS: cgroups can't be bound to CPUs
    warning CONFIG_SMP: the machine has one CPU, whatever the test declares
    warning CONFIG_NUMA: the machine has one NUMA node, whatever the test declares
    warning CONFIG_SCHED_CLASS_EXT: sched_ext schedulers can't be loaded
    warning CONFIG_BPF_SYSCALL: BPF programs can't be loaded
    warning CONFIG_DEBUG_INFO_BTF: there is no type information, so BPF schedulers can't be loaded and the monitor can't read the kernel
    warning CONFIG_FAIR_GROUP_SCHED: cgroups have no cpu.weight
    warning CONFIG_CFS_BANDWIDTH: cgroups have no cpu.max
    warning CONFIG_MEMCG: cgroups have no memory limits
    warning CONFIG_PSI: pressure (cpu.pressure and its siblings) can't be read
    warning CONFIG_SCHEDSTATS: run delays and wake-up counters are zero
    warning CONFIG_SCHED_INFO: run delays of workers can't be read
    warning CONFIG_KALLSYMS: the kernel's symbols are not known, so the monitor can't read it
    ");
}

#[test]
fn without_a_config_nothing_is_claimed() {
    let found = check_config(None, |_| true);
    assert!(found.unchecked && found.can_boot());
    insta::assert_snapshot!(found, @"not checked: the kernel's options are not known (it was built without CONFIG_IKCONFIG and no config file lies beside it)");
    assert!(check_config(Some(&KernelConfig::default()), |_| true).unchecked);
}

#[test]
fn fault_f10_a_kernel_of_unknown_options_is_judged_by_what_is_in_it() {
    let image = |texts: &str| {
        let rodata = format!("Linux version {RELEASE} (a@b)\n\0{texts}");
        elf(2, 62, &[(".rodata", rodata.as_bytes())])
    };
    let scratch = Scratch::new();
    let built_in = image("virtio-pci\0vport%up%u\0");
    let kernel = scratch
        .resolve(&scratch.write("built-in/vmlinux", &built_in))
        .unwrap();
    let requirements = kernel.requirements().unwrap();
    assert!(requirements.unchecked && requirements.can_boot());
    assert!(kernel.boot_modules().unwrap().is_empty());

    let without = image("");
    let kernel = scratch
        .resolve(&scratch.write("without/vmlinux", &without))
        .unwrap();
    insta::assert_snapshot!(kernel.requirements().unwrap(), @r#"
        not checked: the kernel's options are not known (it was built without CONFIG_IKCONFIG and no config file lies beside it)
        missing CONFIG_VIRTIO_PCI: the virtio console isn't found, so no result can come back
        missing CONFIG_VIRTIO_CONSOLE: the virtio console isn't driven, so no result can come back
        "#);

    let folder = scratch.dir.path().join("modules");
    scratch.write("modules/vmlinux", &without);
    for name in ["virtio_pci", "virtio_console"] {
        let path = format!("modules/lib/modules/{RELEASE}/kernel/drivers/{name}.ko");
        scratch.write(&path, &module(""));
    }
    let kernel = scratch.resolve(&folder).unwrap();
    assert!(kernel.requirements().unwrap().can_boot());
    assert_eq!(
        kernel.boot_modules().unwrap(),
        ["virtio_pci", "virtio_console"]
    );
}
