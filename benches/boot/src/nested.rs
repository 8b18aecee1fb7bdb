//! The microVM beside QEMU's, both on the KVM of one emulated machine: the side that boots that machine.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ktstr_host::initramfs::Include;
use ktstr_host::{MemoryPlan, RunEvent, RunObserver, Session, Settings, ShellPlan};
use ktstr_kernels::{Cache, Kernel, Quiet};
use ktstr_machine::EngineKind;
use ktstr_topology::Topology;

use crate::qemu::Qemu;

/// Where things are in the outer machine.
pub(crate) const VMLINUX: &str = "/bench/vmlinux";
pub(crate) const BZIMAGE: &str = "/bench/vmlinuz";
pub(crate) const QEMU: &str = "/bench/qemu-system-x86_64";
pub(crate) const FIRMWARE: &str = "/bench/firmware";

/// What QEMU loads for `-M microvm`, with a bzImage and with an ELF kernel.
const FIRMWARE_FILES: [&str; 3] = ["bios-microvm.bin", "linuxboot_dma.bin", "pvh.bin"];

const OUTER_MIB: u64 = 3072;

/// For all boots together, on a host that may be busy.
const TIMEOUT: Duration = Duration::from_secs(3600);

/// Set-ups measured, of each kind.
const SET_UPS: &str = "20";

/// Boots the outer machine, in which this program measures `pairs` of boots, if any, and some set-ups, and prints
/// what it says.
pub(crate) fn boot_outer(pairs: u32) -> Result<()> {
    let mut settings = ktstr::settings_from_environment()?;
    settings.runs_in = EngineKind::Tcg.into();
    let qemu = match pairs {
        0 => None,
        _ => Some(Qemu::find(&Cache::open_default(std::env::var_os)?)?),
    };
    if let Some(qemu) = &qemu {
        add_library_folders(&mut settings, &qemu.library_folders);
    }
    let session = Session::open(settings, &Quiet)?;
    let mut includes = vec![include(session.kernel().vmlinux(), VMLINUX)];
    if let Some(qemu) = &qemu {
        includes.extend(qemu_includes(session.kernel(), qemu)?);
    }
    let run = |argv: [&str; 4]| -> Result<()> {
        let plan = ShellPlan {
            topology: Topology::SINGLE,
            memory: MemoryPlan {
                memory_mib: Some(OUTER_MIB),
                ..MemoryPlan::default()
            },
            argv: argv.map(str::to_owned).to_vec(),
            interactive: false,
            includes: includes.clone(),
            modules: Vec::new(),
            own_kvm: true,
            timeout: Some(TIMEOUT),
        };
        let end = session.run_shell(&plan, &mut Print)?;
        ensure!(end.status == 0, "{argv:?} ended with status {}", end.status);
        Ok(())
    };
    run(["/init", "inside", &pairs.to_string(), SET_UPS])
}

/// Prints what the machine prints.
struct Print;

impl RunObserver for Print {
    fn event(&mut self, event: &RunEvent<'_>) {
        if let RunEvent::Output { bytes, .. } = event {
            // The reader may have gone; the status still says how it went.
            let _ = std::io::stdout().write_all(bytes);
            let _ = std::io::stdout().flush();
        }
    }
}

fn include(host: &Path, guest: &str) -> Include {
    Include {
        host: host.to_owned(),
        guest: guest.to_owned(),
    }
}

/// Has the libraries of programs looked for in these folders too.
fn add_library_folders(settings: &mut Settings, folders: &[PathBuf]) {
    let own = folders.iter().map(|folder| folder.display().to_string());
    let all: Vec<String> = own.chain(settings.library_path.take()).collect();
    settings.library_path = (!all.is_empty()).then(|| all.join(":"));
}

/// QEMU with its firmware, and the kernel in the form that only it is given.
fn qemu_includes(kernel: &Kernel, qemu: &Qemu) -> Result<Vec<Include>> {
    let bzimage = kernel.bzimage().context("the kernel has no bzImage")?;
    let mut includes = vec![include(bzimage, BZIMAGE), include(&qemu.binary, QEMU)];
    for name in FIRMWARE_FILES {
        includes.push(include(
            &qemu.firmware(name)?,
            &format!("{FIRMWARE}/{name}"),
        ));
    }
    Ok(includes)
}
