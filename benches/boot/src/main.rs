//! One boot, to be timed as a whole process by `cargo xtask bench boot`.
//!
//! | argument | what is booted |
//! |---|---|
//! | `plain` | QEMU as a person would call it, on the same kernel, to an `/init` that powers off |
//! | `tuned` | the `tcg` engine's own machine, to the same `/init` |
//! | `test` | an empty `#[ktstr_test]` |
//! | `nested N` | N times QEMU's microvm and ours, in an emulated machine with a KVM, and what our set-up takes there |
//! | `set-up` | the last of these alone |

mod inside;
mod minimal_init;
mod nested;
mod qemu;

use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ktstr::prelude::*;
use ktstr_kernels::{Cache, Kernel, Quiet, ResolveOptions};
use ktstr_machine::{BootKernel, End, EngineKind, InitrdPart, MachineSpec, on_end};
use minimal_init::Finish;
use qemu::Qemu;

const CPUS: u32 = 2;
const MEMORY_MIB: u64 = 512;

/// Far beyond any boot.
const DEADLINE: Duration = Duration::from_secs(120);

/// What is left of a test when it tests nothing.
#[ktstr_test(cores = 2, memory_mib = 512)]
fn empty(_: &Ctx) -> Result<AssertResult> {
    Ok(AssertResult::default())
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["plain"] => plain()?,
        ["tuned"] => tuned()?,
        // Panics, and so fails, unless the test passes.
        ["test"] => ktstr::__private::run("boot_bench::empty"),
        ["nested", pairs] => nested::boot_outer(pairs.parse()?)?,
        ["set-up"] => nested::boot_outer(0)?,
        // What the outer machine runs.
        ["inside", pairs, set_ups] => inside::measure(pairs.parse()?, set_ups.parse()?)?,
        ["ours", cpus, look] => inside::ours(cpus, look.parse()?)?,
        _ => bail!("say what to boot: plain, tuned, test, nested or set-up"),
    }
    Ok(ExitCode::SUCCESS)
}

fn cache() -> Result<Cache> {
    Ok(Cache::open_default(std::env::var_os)?)
}

fn kernel() -> Result<Kernel> {
    let settings = ktstr::settings_from_environment()?;
    let cache = cache()?;
    Ok(ktstr_kernels::resolve(
        settings.kernel.as_ref(),
        &cache,
        &ResolveOptions::default(),
        &Quiet,
    )?)
}

/// One emulation thread, as the engine has it: with a thread for each CPU, QEMU 7.2 breaks some boots.
fn plain() -> Result<()> {
    let kernel = kernel()?;
    let image = kernel.bzimage().context("the kernel has no bzImage")?;
    let initramfs = tempfile::NamedTempFile::new()?;
    std::fs::write(&initramfs, minimal_init::initramfs(Finish::PowerOff)?)?;
    let ended = Command::new(Qemu::find(&cache()?)?.program)
        .args(["-accel", "tcg,thread=single", "-nographic", "-no-reboot"])
        .args(["-smp", &CPUS.to_string(), "-m", &MEMORY_MIB.to_string()])
        .args(["-append", "console=ttyS0 panic=-1"])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initramfs.path())
        .stdin(Stdio::null())
        .output()?;
    let console = String::from_utf8_lossy(&ended.stdout);
    ensure!(
        console.contains("reboot: Power down"),
        "the kernel did not power off:\n{console}"
    );
    Ok(())
}

fn tuned() -> Result<()> {
    let kernel = kernel()?;
    let engine = ktstr_machine::choose(EngineKind::Tcg, &qemu::engine_options(&cache()?))?.engine;
    let topology = Topology::new(1, 1, CPUS, 1)?;
    let boot = BootKernel {
        pvh: kernel.pvh_entry().is_some(),
        bzimage: kernel.bzimage().map(Into::into),
        vmlinux: Some(kernel.vmlinux().into()),
    };
    let mut spec = MachineSpec::new(topology, MEMORY_MIB, boot);
    spec.initrd = vec![InitrdPart::Bytes(
        minimal_init::initramfs(Finish::PowerOff)?.into(),
    )];
    let (sender, ended) = channel();
    let machine = engine.launch(&spec, on_end(move |end| drop(sender.send(end))))?;
    let end = ended.recv_timeout(DEADLINE)?;
    ensure!(
        end == End::PoweredOff,
        "{end}:\n{}",
        machine.com1().contents()
    );
    Ok(())
}
