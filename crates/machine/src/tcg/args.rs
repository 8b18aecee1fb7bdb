//! QEMU's command line.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use super::topology::{cpu_args, machine_option};
use crate::cmdline;
use crate::devices::QemuDevice;
use crate::spec::{MachineSpec, SpecError};

/// Options that every guest gets. They save boot time or make failures visible, and leave scheduling as
/// the kernel under test has it.
const BASE_OPTIONS: &[&str] = &[
    // The console, and what is printed on it: warnings and worse, so that WARN and BUG arrive.
    "console=ttyS0",
    "loglevel=5",
    // A panic ends the machine at once, by the shortest way: a triple fault.
    "panic=-1",
    "reboot=t",
    // The TSC of an emulated CPU is in step on all vCPUs: no watchdog over it, which a busy host would set off.
    "tsc=reliable",
    "no_timer_check",
    // Self-tests of the crypto API run at boot and test nothing of ours.
    "cryptomgr.notests",
];

/// The fds that QEMU inherits, by number: the same in it as in us.
#[derive(Clone, Debug)]
pub(crate) struct ChildFds {
    /// RAM of each NUMA node.
    pub(crate) ram: Vec<RawFd>,
    /// The initramfs, if there is one.
    pub(crate) initrd: Option<RawFd>,
    pub(crate) qmp: RawFd,
    pub(crate) com1: RawFd,
    pub(crate) com2: RawFd,
    pub(crate) frames: RawFd,
    /// Only with an interactive console.
    pub(crate) shell: Option<RawFd>,
    /// What [`QemuDevice`]s name.
    pub(crate) devices: Vec<RawFd>,
    /// Only with a port by which the guest pauses its machine.
    pub(crate) pause: Option<RawFd>,
}

/// The kernel command line: the engine's options, then the machine's own.
pub(crate) fn kernel_cmdline(spec: &MachineSpec) -> Result<String, SpecError> {
    cmdline::join(BASE_OPTIONS, spec)
}

/// What QEMU may not do once it has read its arguments (docs/system/security.rst of QEMU): a guest that breaks out of
/// it starts no program, gains no rights and changes no other process's scheduling. It needs none of that itself.
pub(crate) const SANDBOX: [&str; 2] = [
    "-sandbox",
    "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
];

/// What depends on the QEMU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abilities {
    /// Each vCPU gets a thread of its own.
    pub(crate) thread_per_vcpu: bool,
    /// It takes [`SANDBOX`].
    pub(crate) sandbox: bool,
}

/// All arguments for a machine as specified.
pub(crate) fn qemu_args(
    spec: &MachineSpec,
    abilities: Abilities,
    fds: &ChildFds,
    devices: &[QemuDevice],
) -> Result<Vec<OsString>, SpecError> {
    let threads = if abilities.thread_per_vcpu {
        "multi"
    } else {
        "single"
    };
    let mut args = Args::default();
    args.add("-name", "ktstr");
    if abilities.sandbox {
        let [option, value] = SANDBOX;
        args.add(option, value);
    }
    args.flag("-nodefaults");
    args.flag("-no-user-config");
    args.flag("-no-reboot");
    args.add("-display", "none");
    args.add("-M", format!("{MACHINE}{}", machine_option(&spec.numa)));
    args.add("-accel", format!("tcg,thread={threads}"));
    args.add("-cpu", if spec.amd_v { CPU_WITH_SVM } else { CPU });
    args.add("-m", format!("{}M", spec.numa.total_mib()));
    for ((node, mib), fd) in (0..).zip(spec.node_memory_mib()).zip(&fds.ram) {
        let node: u32 = node;
        args.add(
            "-object",
            format!(
                "memory-backend-file,id=ram{node},size={mib}M,share=on,mem-path={}",
                fd_path(*fd)
            ),
        );
    }
    args.0.extend(
        cpu_args(&spec.topology, &spec.numa)
            .into_iter()
            .map(Into::into),
    );
    add_streams(&mut args, spec, fds);
    for (name, value) in devices.iter().flat_map(|device| &device.args) {
        args.add(name, value);
    }
    args.path(
        "-kernel",
        spec.kernel.boot_file(spec.boot.kaslr)?.to_owned(),
    );
    if let Some(initrd) = fds.initrd {
        args.add("-initrd", fd_path(initrd));
    }
    args.add("-append", kernel_cmdline(spec)?);
    Ok(args.0)
}

/// What the guest and QEMU talk to us on.
fn add_streams(args: &mut Args, spec: &MachineSpec, fds: &ChildFds) {
    args.socket("qmp", fds.qmp);
    args.add("-mon", "chardev=qmp,mode=control");
    args.serial("com1", fds.com1);
    args.add("-serial", "chardev:com1");
    args.serial("com2", fds.com2);
    args.add("-serial", "chardev:com2");
    // What the guest has written to a port is in its stream then, and not still with a main loop that the guest's pause
    // would hold up.
    args.add(
        "-device",
        "virtio-serial-pci-non-transitional,max_ports=2,romfile=,ioeventfd=off",
    );
    if let Some(shell) = fds.shell {
        args.socket("shell", shell);
        args.add("-device", "virtconsole,nr=0,chardev=shell");
    }
    args.socket("frames", fds.frames);
    args.add(
        "-device",
        format!(
            "virtserialport,nr=1,chardev=frames,name={}",
            spec.frames_port_name
        ),
    );
    if let Some((port, fd)) = spec.pause_port.zip(fds.pause) {
        args.serial("pause", fd);
        args.add("-chardev", "stdio,id=hold,signal=off");
        for (port, stream) in [(port, "pause"), (port + 1, "hold")] {
            let device = format!("isa-debugcon,iobase={port:#x},chardev={stream}");
            args.add("-device", device);
        }
    }
}

/// The machine type with the parts left out that a test has no use for.
const MACHINE: &str = "q35,hpet=off,smm=off,usb=off,sata=off,smbus=off,vmport=off,\
                       dump-guest-core=off";

const CPU: &str = "max";

/// AMD-V on the plainest model: with richer ones the inner kernel fails in its XSAVE set-up.
const CPU_WITH_SVM: &str = "qemu64,+svm,+npt,+nrip-save";

fn fd_path(fd: RawFd) -> String {
    format!("/proc/self/fd/{fd}")
}

#[derive(Default)]
struct Args(Vec<OsString>);

impl Args {
    fn flag(&mut self, name: &str) {
        self.0.push(name.into());
    }

    fn add(&mut self, name: &str, value: impl Into<String>) {
        self.flag(name);
        self.0.push(value.into().into());
    }

    fn path(&mut self, name: &str, value: PathBuf) {
        self.flag(name);
        self.0.push(value.into());
    }

    fn socket(&mut self, id: &str, fd: RawFd) {
        self.add("-chardev", format!("socket,id={id},fd={fd}"));
    }

    /// A pipe can be named as a file only.
    fn serial(&mut self, id: &str, fd: RawFd) {
        self.add("-chardev", format!("file,id={id},path={}", fd_path(fd)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::devices::Disk;
    use crate::spec::BootKernel;
    use ktstr_topology::NumaSpec;

    fn fds(nodes: u32, initrd: bool, shell: bool) -> ChildFds {
        ChildFds {
            ram: (20..).take(nodes as usize).collect(),
            initrd: initrd.then_some(30),
            qmp: 10,
            com1: 11,
            com2: 12,
            frames: 13,
            shell: shell.then_some(14),
            devices: Vec::new(),
            pause: shell.then_some(15),
        }
    }

    /// One option a line.
    fn show(spec: &MachineSpec, thread_per_vcpu: bool, fds: &ChildFds) -> String {
        let abilities = Abilities {
            thread_per_vcpu,
            sandbox: true,
        };
        let devices = (0..).zip(&spec.devices);
        let devices =
            devices.map(|(index, device)| device.qemu(&format!("device{index}")).unwrap());
        let args = qemu_args(spec, abilities, fds, &devices.collect::<Vec<_>>()).unwrap();
        let mut lines = String::new();
        for arg in args {
            let arg = arg.to_string_lossy();
            lines.push_str(if arg.starts_with('-') { "\n" } else { " " });
            lines.push_str(&arg);
        }
        lines.trim_start().to_owned()
    }

    fn spec(topology: &str, memory_mib: u64) -> MachineSpec {
        let kernel = BootKernel {
            bzimage: Some("/k/vmlinuz".into()),
            vmlinux: Some("/k/vmlinux".into()),
            pvh: true,
        };
        MachineSpec::new(topology.parse().unwrap(), memory_mib, kernel)
    }

    #[test]
    fn one_cpu() {
        insta::assert_snapshot!(show(&spec("1,1,1,1", 256), false, &fds(1, false, false)));
    }

    #[test]
    fn two_nodes_with_initramfs_shell_and_options() {
        let mut spec = spec("2,4,2,2", 3073);
        spec.interactive_console = true;
        spec.pause_port = Some(0xe9);
        spec.cmdline = vec!["sched_verbose".to_owned()];
        insta::assert_snapshot!(show(&spec, true, &fds(2, true, true)));
    }

    #[test]
    fn a_disk_is_asked_for() {
        let plain = show(&spec("1,1,1,1", 256), false, &fds(1, false, false));
        let mut spec = spec("1,1,1,1", 256);
        spec.devices = vec![Arc::new(Disk { len_mib: 64 })];
        let args = show(&spec, false, &fds(1, false, false));
        let added: Vec<_> = args.lines().filter(|line| !plain.contains(line)).collect();
        let [blockdev, device] = added.as_slice() else {
            panic!("{added:?}");
        };
        assert!(
            blockdev.starts_with("-blockdev driver=file,node-name=device0,filename=/proc/self/fd/"),
            "{blockdev}"
        );
        assert_eq!(
            *device,
            "-device virtio-blk-pci-non-transitional,drive=device0,serial=ktstr"
        );
    }

    #[test]
    fn a_node_without_cpus() {
        let mut spec = spec("2,2,1,1", 0);
        let numa = NumaSpec {
            node_memory_mib: vec![768, 256],
            memory_only_node_mib: vec![128],
            node_distances: vec![vec![10, 20, 60], vec![20, 10, 30], vec![60, 30, 10]],
            ..NumaSpec::default()
        };
        spec.numa = numa.resolve(&spec.topology, 0).unwrap();
        insta::assert_snapshot!(show(&spec, false, &fds(3, false, false)));
    }

    #[test]
    fn with_kaslr_the_image_is_booted() {
        let mut spec = spec("1,1,1,1", 256);
        spec.boot.kaslr = true;
        let args = show(&spec, false, &fds(1, false, false));
        assert!(args.contains("\n-kernel /k/vmlinuz\n"), "{args}");
        spec.kernel.bzimage = None;
        let abilities = Abilities {
            thread_per_vcpu: false,
            sandbox: false,
        };
        let error = qemu_args(&spec, abilities, &fds(1, false, false), &[]).unwrap_err();
        assert!(matches!(error, SpecError::NoKaslr));
    }

    #[test]
    fn without_pvh_the_image_is_booted() {
        let mut spec = spec("1,1,1,1", 256);
        spec.kernel.pvh = false;
        let args = show(&spec, false, &fds(1, false, false));
        assert!(args.contains("\n-kernel /k/vmlinuz\n"), "{args}");
    }

    #[test]
    fn options_that_no_kernel_takes_are_refused() {
        let mut spec = spec("1,1,1,1", 256);
        spec.cmdline = vec!["a\nb".to_owned()];
        let error = kernel_cmdline(&spec).unwrap_err().to_string();
        assert!(error.contains(r#""a\nb""#), "{error}");
        spec.cmdline = vec!["x".repeat(2048)];
        assert!(matches!(
            kernel_cmdline(&spec),
            Err(SpecError::CmdlineTooLong { .. })
        ));
    }
}
