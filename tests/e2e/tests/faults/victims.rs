//! Tests that go wrong on purpose. The tests of this binary run them, one at a time, in a process of its
//! own, and read what it reports.

pub(crate) mod ring0;
mod virtio;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use ktstr::prelude::*;
use ktstr::scenario::checks;
use ktstr_wire::{FRAME_PORT_NAME, Message};

#[ktstr_test]
#[ignore = "goes wrong on purpose"]
fn body_panics(_: &Ctx) -> Result<AssertResult> {
    panic!("the body gives up at {}", 42);
}

#[ktstr_test]
#[ignore = "goes wrong on purpose"]
fn body_returns_an_error(_: &Ctx) -> Result<AssertResult> {
    Err(anyhow!("the inner cause").context("the outer cause"))
}

#[ktstr_test]
#[ignore = "goes wrong on purpose"]
fn body_is_killed(_: &Ctx) -> Result<AssertResult> {
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL)?;
    bail!("still alive");
}

#[ktstr_test]
#[ignore = "goes wrong on purpose"]
fn body_faults(_: &Ctx) -> Result<AssertResult> {
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGSEGV)?;
    bail!("still alive");
}

#[ktstr_test]
#[ignore = "goes wrong on purpose"]
fn body_ends_its_process(_: &Ctx) -> Result<AssertResult> {
    #[expect(clippy::exit, reason = "the fault under test")]
    std::process::exit(0);
}

#[ktstr_test]
#[ignore = "goes wrong on purpose"]
fn kernel_panics(_: &Ctx) -> Result<AssertResult> {
    fs::write("/proc/sysrq-trigger", "c")?;
    bail!("the kernel goes on");
}

/// A thread kills one of the workers as soon as it sees the cgroup.
#[ktstr_test(cores = 2)]
#[ignore = "goes wrong on purpose"]
fn worker_is_killed(ctx: &Ctx) -> Result<AssertResult> {
    let killer = thread::spawn(|| -> Result<()> {
        let procs = "/sys/fs/cgroup/ktstr/prey/cgroup.procs";
        let pid = loop {
            let pids = fs::read_to_string(procs).unwrap_or_default();
            if pids.lines().count() == 2 {
                break pids.lines().next().unwrap_or_default().parse()?;
            }
            thread::sleep(Duration::from_millis(5));
        };
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGKILL,
        )?;
        Ok(())
    });
    let result = execute_defs(ctx, vec![CgroupDef::named("prey").workers(2)])?;
    killer
        .join()
        .map_err(|_| anyhow!("the killer panicked"))??;
    Ok(result)
}

/// A worker that may use CPU 0 only, by its cpuset, with a report that says it was on CPU 1.
#[ktstr_test(cores = 2)]
#[ignore = "goes wrong on purpose"]
fn worker_strays(ctx: &Ctx) -> Result<AssertResult> {
    let defs = vec![
        CgroupDef::named("bound")
            .workers(1)
            .cpuset(CpusetSpec::Exact(CpuSet::from_range(0..1))),
    ];
    let mut reports = execute_defs(ctx, defs)?.cgroups;
    reports[0].workers[0].cpus_used.insert(1);
    let mut result = checks::judge_workers(&ctx.assert, &ctx.timing, &reports);
    result.cgroups = reports;
    Ok(result)
}

#[ktstr_test(cores = 2)]
#[ignore = "goes wrong on purpose"]
fn a_cpu_goes_offline(_: &Ctx) -> Result<AssertResult> {
    fs::write("/sys/devices/system/cpu/cpu1/online", "0")?;
    Ok(AssertResult::default())
}

#[ktstr_test(cores = 2, timeout_s = 4)]
#[ignore = "goes wrong on purpose"]
fn body_hangs(_: &Ctx) -> Result<AssertResult> {
    File::options()
        .write(true)
        .open("/dev/kmsg")?
        .write_all(b"<2>about to hang\n")?;
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

/// Waits to be killed from outside; says when it is there.
#[ktstr_test(timeout_s = 60)]
#[ignore = "goes wrong on purpose"]
fn body_waits(_: &Ctx) -> Result<AssertResult> {
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

#[ktstr_test]
#[ignore = "goes wrong on purpose"]
fn frame_is_damaged(_: &Ctx) -> Result<AssertResult> {
    let mut frame = ktstr_wire::Encoder::default().encode(&Message::Remark("forged".to_owned()))?;
    let last = frame.len() - 1;
    frame[last] ^= 0x20;
    write_to_frame_port(&frame)?;
    Ok(AssertResult::default())
}

#[ktstr_test(timeout_s = 120)]
#[ignore = "goes wrong on purpose"]
fn port_and_console_are_flooded(_: &Ctx) -> Result<AssertResult> {
    let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
    let mut console = File::options().write(true).open("/dev/ttyS0")?;
    for _ in 0..1024 {
        console.write_all(&line)?;
    }
    // Through the pipe, in frames of their own.
    let mut stdout = std::io::stdout().lock();
    for _ in 0..24 * 1024 {
        stdout.write_all(&line)?;
    }
    // And raw, as a guest that has lost its mind would.
    for _ in 0..8 * 1024 {
        write_to_frame_port(&line)?;
    }
    Ok(AssertResult::default())
}

#[ktstr_test(modules = ["no_such_module"])]
#[ignore = "goes wrong on purpose"]
fn module_is_unknown(_: &Ctx) -> Result<AssertResult> {
    Ok(AssertResult::default())
}

/// Its init function looks for VT-x, which the emulated CPU lacks.
#[ktstr_test(modules = ["kvm_intel"])]
#[ignore = "goes wrong on purpose"]
fn module_does_not_load(_: &Ctx) -> Result<AssertResult> {
    Ok(AssertResult::default())
}

/// Under a QEMU that has the kernel look for another program than `/init`.
#[ktstr_test]
#[ignore = "goes wrong on purpose"]
fn boot_dies(_: &Ctx) -> Result<AssertResult> {
    Ok(AssertResult::default())
}

#[ktstr_test(llcs = 64, cores = 64, threads = 2)]
#[ignore = "goes wrong on purpose"]
fn more_cpus_than_the_engine_has(_: &Ctx) -> Result<AssertResult> {
    Ok(AssertResult::default())
}

#[ktstr_test(progress = off, cpus_online = off, kernel_log = off)]
#[ignore = "goes wrong on purpose"]
fn nothing_is_checked(_: &Ctx) -> Result<AssertResult> {
    Ok(AssertResult::default())
}

#[ktstr_test]
#[ignore = "goes wrong on purpose"]
fn body_skips(_: &Ctx) -> Result<AssertResult> {
    Ok(AssertResult::skip("not on a Monday"))
}

/// Writes past the harness, on the descriptor that it holds: the port can be opened only once.
fn write_to_frame_port(bytes: &[u8]) -> Result<()> {
    let ports = fs::read_dir("/sys/class/virtio-ports")?;
    let device = ports
        .flatten()
        .find(|port| {
            let name = fs::read_to_string(port.path().join("name"));
            name.is_ok_and(|name| name.trim_end() == FRAME_PORT_NAME)
        })
        .context("no frame port")?;
    let node = PathBuf::from("/dev").join(device.file_name());
    let descriptor = fs::read_dir("/proc/self/fd")?
        .flatten()
        .find(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == node))
        .context("the harness has no frame port open")?;
    let number: i32 = descriptor.file_name().to_string_lossy().parse()?;
    let duplicate = duplicate(number)?;
    let mut left = bytes;
    while !left.is_empty() {
        let written = nix::unistd::write(&duplicate, left)?;
        left = &left[written..];
    }
    ensure!(duplicate.as_raw_fd() != number);
    Ok(())
}

#[expect(
    unsafe_code,
    reason = "a descriptor of the harness, known by its number only"
)]
fn duplicate(number: i32) -> Result<std::os::fd::OwnedFd> {
    // SAFETY: the harness keeps its port open for as long as the body runs.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
    Ok(borrowed.try_clone_to_owned()?)
}
