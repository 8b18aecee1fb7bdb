//! `scx_ktstr`: a plain sched_ext scheduler, with faults that can be switched on.
//!
//! The scheduler itself is src/bpf/main.bpf.c. This part loads it, keeps it attached until it is told to end
//! (SIGTERM, SIGINT) or the kernel disables the scheduler, and then prints how it ended.

mod args;
mod exit_record;
mod llcs;
mod skeleton;

use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{Link, MapCore as _, MapFlags, PrintLevel};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use args::{Args, Fault};
use exit_record::ExitRecord;
use llcs::Llcs;
use skeleton::{MainSkel, MainSkelBuilder, OpenMainSkel, types};

/// How often the scheduler is looked at.
const POLL_MS: u8 = 100;

/// How long the kernel may take to tell a detached scheduler that it ended.
const EXIT_WITHIN: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(record) => {
            say(&record.to_string());
            ExitCode::from(u8::from(record.is_error()))
        }
        Err(error) => {
            eprintln!("scx_ktstr: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<ExitRecord> {
    // Before any thread is started: all must have them blocked.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block().context("blocking signals")?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .context("waiting for signals")?;

    libbpf_rs::set_print(Some((PrintLevel::Info, |_, text| eprint!("{text}"))));
    loop {
        let record = load_and_stay(args, &signals)?;
        if !(args.restart && record.asks_for_restart()) {
            return Ok(record);
        }
        say(&record.to_string());
    }
}

/// Keeps the scheduler attached until it ends.
fn load_and_stay(args: &Args, signals: &SignalFd) -> Result<ExitRecord> {
    let mut object = MaybeUninit::uninit();
    let mut open = MainSkelBuilder::default()
        .open(&mut object)
        .context("opening the BPF object")?;
    set_up(&mut open, args)?;
    let mut skeleton = open.load().context("loading the BPF programs")?;
    let link = skeleton
        .maps
        .ktstr_ops
        .attach_struct_ops()
        .context("attaching the scheduler")?;
    say("scx_ktstr: attached as \"ktstr\"");
    stay(&skeleton, link, args.fault, signals)
}

fn set_up(open: &mut OpenMainSkel<'_>, args: &Args) -> Result<()> {
    let llcs = Llcs::read().context("reading the CPUs and their caches")?;
    let settings = open.maps.rodata_data.as_deref_mut();
    let settings = settings.context("the object has no .rodata")?;
    if llcs.of_cpu.len() > settings.cpu_llc.len() {
        bail!(
            "{} CPUs are possible, and this scheduler knows {} at most",
            llcs.of_cpu.len(),
            settings.cpu_llc.len()
        );
    }
    settings.nr_cpus = u32::try_from(llcs.of_cpu.len())?;
    settings.nr_llcs = llcs.count;
    settings.cpu_llc[..llcs.of_cpu.len()].copy_from_slice(&llcs.of_cpu);
    settings.slice_ns = args.slice_us * 1_000;
    settings.starve_ns = args.starve_ms * 1_000_000;
    let name = args.cgroup.as_bytes();
    // The last byte stays zero: it ends the text.
    if name.len() >= settings.starved_cgroup.len() {
        bail!("--cgroup `{}` is too long", args.cgroup);
    }
    for (byte, &letter) in settings.starved_cgroup.iter_mut().zip(name) {
        *byte = letter.cast_signed();
    }
    let state = open.maps.bss_data.as_deref_mut();
    let state = state.context("the object has no .bss")?;
    state.fault = args.fault.map_or(0, Fault::in_bpf);
    state.fault_cpu = args.fault_cpu.unwrap_or(settings.nr_cpus - 1);
    open.struct_ops.ktstr_ops_mut().timeout_ms = args.timeout_ms.unwrap_or(0);
    let never_loads = args.fault == Some(Fault::NeverLoad);
    open.progs.ktstr_never_loads.set_autoload(never_loads);
    Ok(())
}

/// Until the end: by a signal, by the kernel, or by a fault of this part.
fn stay(
    skeleton: &MainSkel<'_>,
    link: Link,
    fault: Option<Fault>,
    signals: &SignalFd,
) -> Result<ExitRecord> {
    let mut link = Some(link);
    loop {
        // A scheduler that was detached on purpose has its record, and this process stays all the same.
        if link.is_some()
            && let Some(record) = ExitRecord::read(&skeleton.maps.data_exit)?
        {
            return Ok(record);
        }
        let mut polled = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, POLL_MS).context("waiting")?;
        if signals.read_signal().context("reading a signal")?.is_some() {
            drop(link);
            return ended(skeleton);
        }
        if link.is_some() && workers_seen(skeleton)? {
            match fault {
                Some(Fault::Crash) => std::process::abort(),
                Some(Fault::Detach) => {
                    link = None;
                    ended(skeleton)?;
                    say("scx_ktstr: detached, and stays");
                }
                _ => {}
            }
        }
    }
}

/// What the kernel said to the detached scheduler.
fn ended(skeleton: &MainSkel<'_>) -> Result<ExitRecord> {
    let deadline = Instant::now() + EXIT_WITHIN;
    loop {
        if let Some(record) = ExitRecord::read(&skeleton.maps.data_exit)? {
            return Ok(record);
        }
        if Instant::now() >= deadline {
            bail!(
                "the kernel did not end the detached scheduler within {} s",
                EXIT_WITHIN.as_secs()
            );
        }
        poll(&mut [], POLL_MS).context("waiting")?;
    }
}

/// Read through the kernel: the mapped section changes while it is looked at.
fn workers_seen(skeleton: &MainSkel<'_>) -> Result<bool> {
    let section = skeleton.maps.bss.lookup(&[0; 4], MapFlags::ANY)?;
    let section = section.context("the object has no .bss")?;
    let seen = section.get(std::mem::offset_of!(types::bss, workers_seen));
    Ok(seen.is_some_and(|&byte| byte != 0))
}

/// Prints a line at once, since the reader may wait for it. A reader that has gone does not end this.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
