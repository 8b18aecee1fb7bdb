//! PID 1.

#![expect(
    unsafe_code,
    reason = "fork(2) is how PID 1 keeps the test out of its own process"
)]

use std::convert::Infallible;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use ktstr_wire::{Job, Message, Modules, Task};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid};

use crate::end::power_off;
use crate::inner_host::InnerHostRun;
use crate::link::{Link, LinkError};
use crate::test::TestLookup;
use crate::{command, crash, inner_host, modules, mounts, test};

/// Whether this process is PID 1 of a machine that the host side set up.
pub fn is_guest() -> bool {
    getpid() == Pid::from_raw(1) && Path::new(Modules::LIST).exists()
}

/// Runs the guest to its end: the machine is off when this would return.
pub fn run(tests: TestLookup, run_inner: InnerHostRun) -> ! {
    crash::install();
    let error = match set_up_and_fork(tests, run_inner) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    crash::report(&format!("the guest could not be set up: {error:#}"));
    power_off()
}

fn set_up_and_fork(tests: TestLookup, run_inner: InnerHostRun) -> anyhow::Result<Infallible> {
    let mounted = mounts::mount_all();
    let loaded = modules::load_all();
    let link = Link::open()?;
    link.send(&hello()?)?;
    let job = match mounted.map_err(anyhow::Error::from).and_then(|remarks| {
        loaded?;
        for remark in remarks {
            link.send(&Message::Remark(remark))?;
        }
        receive_job(&link)
    }) {
        Ok(job) => job,
        Err(error) => {
            let chain = error.chain().map(ToString::to_string).collect();
            link.send(&Message::SetupFailed(chain))?;
            link.send(&Message::Bye)?;
            power_off()
        }
    };
    // SAFETY: PID 1 has one thread up to here, so the child's copy of the process is complete.
    match unsafe { fork() }.context("forking the test process")? {
        ForkResult::Child => test_process(job, link, tests, run_inner),
        ForkResult::Parent { child } => {
            // The link is the test process's alone: two numberings on one stream would not fit.
            drop(link);
            reap_until_gone(child);
            power_off()
        }
    }
}

fn test_process(job: Job, link: Link, tests: TestLookup, run_inner: InnerHostRun) -> ! {
    for (name, value) in &job.environment {
        // SAFETY: this process has one thread up to here; nobody else reads the environment.
        unsafe { std::env::set_var(name, value) };
    }
    let ended = match job.task {
        Task::Test {
            ref name,
            ref slack,
            ref scheduler,
        } => test::run(&job, name, slack, scheduler.as_ref(), link, tests),
        Task::InnerHost(ref test) => inner_host::run(test, link, run_inner),
        Task::Shell { argv, interactive } => command::run(&argv, interactive, link),
    };
    if let Err(error) = ended {
        crash::report(&format!("the link to the host broke: {error:#}"));
    }
    leave(0)
}

/// Waits for the job, which comes once the host has been told that this guest is there, and makes the machine ready for
/// it.
fn receive_job(link: &Link) -> anyhow::Result<Job> {
    let job = link.receive_job().inspect_err(|error| {
        if let LinkError::Damaged(damage) = error {
            link.end_for(damage);
        }
    })?;
    #[cfg(target_arch = "x86_64")]
    if may_host_machines(&job.task) {
        crate::io_ports::interrupt_steadily().context("starting the interval timer")?;
    }
    Ok(job)
}

/// Whether machines may run in this one.
fn may_host_machines(task: &Task) -> bool {
    !matches!(task, Task::Test { .. }) && Path::new("/dev/kvm").exists()
}

fn hello() -> anyhow::Result<Message> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(Message::Hello {
        release: release.trim_end().to_owned(),
    })
}

/// Collects every child, orphans of the test included, until `test_process` is among them.
fn reap_until_gone(test_process: Pid) {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, _)) if pid == test_process => return,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == test_process => {
                report_death_by(signal);
                return;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

fn report_death_by(signal: Signal) {
    // A handler in the process itself has already said more about these.
    if !crash::HANDLED_SIGNALS.contains(&signal) {
        crash::report(&format!("the test process was killed by {signal}"));
    }
}

/// Ends this process without running destructors or `atexit` handlers, which belong to the parent too.
fn leave(status: i32) -> ! {
    // SAFETY: _exit(2) takes no pointers and does not return.
    unsafe { libc::_exit(status) }
}
