//! Bringing workers to life.

use std::thread;
use std::time::Instant;

use super::WorkloadError;
use super::body::Body;
use super::config::WorkloadConfig;
use super::gate::Gate;
use super::link::{Link, connect};
use super::process::Process;
use super::seat::{Board, Seat, WAITING};
use super::syscalls::fork;
use super::worker::{self, CloneMode};

/// Spawns all workers, group by group, into `bodies`.
pub(super) fn spawn_all(
    config: &WorkloadConfig,
    board: &Board,
    gate: &Gate,
    bodies: &mut Vec<Body>,
) -> Result<(), WorkloadError> {
    worker::keep_hook_from_workers();
    let facts = config.spec.work_type.facts();
    for first in (0..config.workers).step_by(facts.group_size) {
        let mut links = connect(facts.link, facts.group_size)?;
        for member in 0..facts.group_size {
            let link = std::mem::replace(&mut links[member], Link::None);
            let seat = seat(config, board, gate, first + member, link);
            let body = match config.clone_mode {
                CloneMode::Fork => fork_worker(seat, &mut links)?,
                CloneMode::Thread => thread_worker(seat)?,
            };
            bodies.push(body);
        }
    }
    match config.clone_mode {
        CloneMode::Fork => Ok(()),
        CloneMode::Thread => wait_for_tids(config, board),
    }
}

fn seat(config: &WorkloadConfig, board: &Board, gate: &Gate, index: usize, link: Link) -> Seat {
    let spec = &config.spec;
    let name = || spec.work_type.name().to_owned();
    Seat {
        index,
        board: board.clone(),
        gate: gate.clone(),
        link,
        work_type: spec.work_type,
        comm: spec.comm.clone().unwrap_or_else(name),
        tell_memory: config.tell_memory,
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
fn wait_for_tids(config: &WorkloadConfig, board: &Board) -> Result<(), WorkloadError> {
    let started = Instant::now();
    let deadline = started + config.ready_time();
    for index in 0..config.workers {
        board.wait_until(deadline, || board.stage(index) >= WAITING);
        if board.stage(index) < WAITING {
            return Err(WorkloadError::NotBegun {
                index,
                waited_ms: started.elapsed().as_millis(),
            });
        }
    }
    Ok(())
}
