//! Bringing workers to life.

use std::thread;
use std::time::Instant;

use super::WorkloadError;
use super::handle::{Body, WorkloadHandle};
use super::link::{Link, connect};
use super::process::Process;
use super::seat::{Seat, WAITING};
use super::syscalls::fork;
use super::worker::{self, CloneMode};

/// Spawns all workers of a handle that has none yet, group by group.
pub(super) fn spawn_all(handle: &mut WorkloadHandle) -> Result<(), WorkloadError> {
    worker::keep_hook_from_workers();
    let facts = handle.config.spec.work_type.facts();
    for first in (0..handle.config.workers).step_by(facts.group_size) {
        let mut links = connect(facts.link, facts.group_size)?;
        for member in 0..facts.group_size {
            let link = std::mem::replace(&mut links[member], Link::None);
            let seat = seat(handle, first, first + member, link);
            let body = match handle.config.clone_mode {
                CloneMode::Fork => fork_worker(seat, &mut links)?,
                CloneMode::Thread => thread_worker(seat)?,
            };
            handle.bodies.push(body);
        }
    }
    if handle.config.clone_mode == CloneMode::Thread {
        wait_for_tids(handle)?;
    }
    Ok(())
}

fn seat(handle: &WorkloadHandle, first: usize, index: usize, link: Link) -> Seat {
    let spec = &handle.config.spec;
    Seat {
        index,
        group: first..first + spec.work_type.group_size(),
        board: handle.board.clone(),
        gate: handle.gate.clone(),
        link,
        work_type: spec.work_type,
        comm: spec
            .comm
            .clone()
            .unwrap_or_else(|| spec.work_type.name().to_owned()),
        tell_memory: handle.config.tell_memory,
    }
}

/// Forks a worker. `others` are ends of its group that it must not keep open: with them a worker would
/// not see that its partner is gone. The harness keeps none of its own worker's ends either.
fn fork_worker(seat: Seat, others: &mut Vec<Link>) -> Result<Body, WorkloadError> {
    let harness = worker::harness();
    let index = seat.index;
    let pid = fork(|| {
        others.clear();
        if worker::become_process(harness) {
            worker::run(seat);
        }
    });
    match pid {
        Ok(pid) => Ok(Body::Process(Process::new(pid))),
        Err(source) => Err(WorkloadError::Fork { index, source }),
    }
}

fn thread_worker(seat: Seat) -> Result<Body, WorkloadError> {
    let index = seat.index;
    thread::Builder::new()
        .spawn(move || worker::run(seat))
        .map(Body::Thread)
        .map_err(|source| WorkloadError::Thread { index, source })
}

/// Threads tell their ids themselves; without them they can't be placed.
fn wait_for_tids(handle: &WorkloadHandle) -> Result<(), WorkloadError> {
    let started = Instant::now();
    let deadline = started + handle.ready_time();
    for index in 0..handle.config.workers {
        handle.wait_until(deadline, || handle.board.stage(index) >= WAITING);
        if handle.board.stage(index) < WAITING {
            return Err(WorkloadError::NotBegun {
                index,
                waited_ms: started.elapsed().as_millis(),
            });
        }
    }
    Ok(())
}
