//! A workload, as the harness holds it.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ktstr_report::{WorkerExit, WorkerReport};
use ktstr_topology::CpuSet;

use super::WorkloadError;
use super::body::Body;
use super::config::WorkloadConfig;
use super::gate::Gate;
use super::process::Process;
use super::reading::Reading;
use super::sched_policy::{SchedPolicy, check_range};
use super::seat::{Board, DONE, RUNNING};
use super::spawn::spawn_all;
use super::syscalls::{sched_setaffinity, set_nice};
use super::worker::CloneMode;

/// How long killed workers may take to be gone. Beyond that the kernel gives them no CPU to die on.
const REAP_DEADLINE: Duration = Duration::from_secs(2);

/// Workers that were spawned, and wait at a gate or work. Dropping it kills those that are processes,
/// with all that their work started, and tells those that are threads to stop.
#[derive(Debug)]
pub struct WorkloadHandle {
    config: WorkloadConfig,
    board: Board,
    gate: Gate,
    bodies: Vec<Body>,
    configured: bool,
    declared: Mutex<Vec<DeclaredWorker>>,
}

/// What was declared for one worker.
#[derive(Clone, Debug, Default)]
struct DeclaredWorker {
    nice: i32,
    nice_changes: u32,
    /// Its mask after each change.
    masks: Vec<Option<CpuSet>>,
}

impl WorkloadHandle {
    /// Spawns the workers. They wait until [`WorkloadHandle::start`], so that they can be placed first.
    ///
    /// Forked workers die with the thread that spawned them: keep it alive until they are collected.
    pub fn spawn(config: WorkloadConfig) -> Result<Self, WorkloadError> {
        Self::spawn_behind(config, &Gate::new()?)
    }

    /// As [`WorkloadHandle::spawn`], but behind a gate that other workloads may share, to be released at
    /// the same moment as theirs.
    pub fn spawn_behind(config: WorkloadConfig, gate: &Gate) -> Result<Self, WorkloadError> {
        config.check()?;
        let facts = config.spec.work_type.facts();
        let board = Board::new(config.workers, facts).map_err(WorkloadError::SharedMemory)?;
        let declared = DeclaredWorker {
            nice: config.spec.nice,
            ..DeclaredWorker::default()
        };
        let mut handle = Self {
            declared: Mutex::new(vec![declared; config.workers]),
            config,
            board,
            gate: gate.clone(),
            bodies: Vec::new(),
            configured: false,
        };
        // Into the handle, which ends those that there are if one can't be spawned.
        spawn_all(&handle.config, &handle.board, gate, &mut handle.bodies)?;
        Ok(handle)
    }

    /// Gives the workers their policy and niceness: after they were placed, before they are released.
    pub fn configure(&mut self) -> Result<(), WorkloadError> {
        let policy = self.config.spec.sched_policy;
        if !self.configured {
            let workers = self.worker_tids().into_iter().zip(self.declared().clone());
            for (tid, DeclaredWorker { nice, .. }) in workers {
                if policy != SchedPolicy::Normal || nice != 0 {
                    policy.apply(tid, nice)?;
                }
            }
        }
        self.configured = true;
        Ok(())
    }

    /// Releases the workers (and all others behind the same gate). Does nothing if they already are.
    pub fn start(&mut self) -> Result<(), WorkloadError> {
        self.configure()?;
        self.gate.open();
        Ok(())
    }

    /// Waits until every worker has begun its work; the number that had not when the deadline (5 s, and
    /// the slack) came. That is a finding, not an error: they got no CPU, or died.
    pub fn wait_running(&self) -> usize {
        self.wait_running_by(Instant::now() + self.ready_time())
    }

    pub(crate) fn wait_running_by(&self, deadline: Instant) -> usize {
        let not_begun = || {
            (0..self.bodies.len())
                .filter(|&index| self.board.stage(index) < RUNNING)
                .count()
        };
        self.board.wait_until(deadline, || not_begun() == 0);
        not_begun()
    }

    /// How long beginning may take.
    pub(crate) fn ready_time(&self) -> Duration {
        self.config.ready_time()
    }

    /// Iterations of each worker so far.
    pub fn snapshot_iterations(&self) -> Vec<u64> {
        let slots = self.board.slots.iter();
        slots
            .map(|slot| slot.published.iterations.load(Ordering::Relaxed))
            .collect()
    }

    /// The figures of each worker now, without stopping it. Longest gaps and latencies are those since the last call.
    pub(crate) fn read(&self) -> Vec<Reading> {
        let workers = self.worker_tids().into_iter().zip(self.board.slots.iter());
        workers
            .map(|(tid, slot)| Reading::take(tid, &slot.published))
            .collect()
    }

    /// Binds worker `index` to `cpus`, also while it runs.
    pub fn set_affinity(&self, index: usize, cpus: &CpuSet) -> Result<(), WorkloadError> {
        let tid = self.tid(index)?;
        // Held throughout, so that masks are recorded in the order in which the kernel gets them.
        let mut declared = self.declared();
        let epoch = &self.board.slots[index].mask_epoch;
        epoch.fetch_add(1, Ordering::AcqRel);
        let set = sched_setaffinity(tid, cpus);
        epoch.fetch_add(1, Ordering::AcqRel);
        let masks = &mut declared[index].masks;
        let before = masks.last().cloned().flatten();
        masks.push(if set.is_ok() {
            Some(cpus.clone())
        } else {
            before
        });
        set.map_err(|source| WorkloadError::Affinity {
            tid,
            cpus: cpus.to_string(),
            source,
        })
    }

    /// Gives worker `index` a niceness of its own, -20 to 19. Before the workers are released it takes the
    /// place of that in the [`WorkSpec`](super::WorkSpec).
    pub fn set_nice(&self, index: usize, nice: i32) -> Result<(), WorkloadError> {
        check_range("the niceness", i64::from(nice), -20, 19)?;
        let tid = self.tid(index)?;
        let mut declared = self.declared();
        if self.configured {
            set_nice(tid, nice).map_err(|source| WorkloadError::Policy {
                tid,
                policy: format!("{} with nice {nice}", self.config.spec.sched_policy),
                source,
            })?;
        }
        declared[index].nice = nice;
        declared[index].nice_changes += u32::from(self.gate.is_open());
        Ok(())
    }

    fn tid(&self, index: usize) -> Result<i32, WorkloadError> {
        let tids = self.worker_tids();
        let workers = tids.len();
        let tid = tids.get(index).copied();
        tid.ok_or(WorkloadError::NoSuchWorker { index, workers })
    }

    fn declared(&self) -> MutexGuard<'_, Vec<DeclaredWorker>> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pids to be written to `cgroup.procs`. An error for workers that are threads.
    pub fn worker_pids_for_cgroup_procs(&self) -> Result<Vec<i32>, WorkloadError> {
        match self.config.clone_mode {
            CloneMode::Fork => Ok(self.worker_tids()),
            CloneMode::Thread => Err(WorkloadError::ThreadsNotProcesses),
        }
    }

    /// Thread ids: for forked workers their pids.
    pub fn worker_tids(&self) -> Vec<i32> {
        let tid = |(index, body): (usize, &Body)| match body {
            Body::Process(process) => process.pid(),
            Body::Thread(_) => self.board.slots[index].tid.load(Ordering::Acquire),
        };
        self.bodies.iter().enumerate().map(tid).collect()
    }

    /// Workers that have ended by anything but the end of their work, and how.
    pub fn dead_workers(&mut self) -> Vec<(i32, WorkerExit)> {
        let tids = self.worker_tids();
        let mut dead = Vec::new();
        for (index, tid) in tids.into_iter().enumerate() {
            if self.board.stage(index) == DONE {
                let report = self.board.report(index);
                dead.extend(
                    report
                        .ok()
                        .filter(|r| !r.completed())
                        .map(|r| (tid, r.exit)),
                );
            } else if let Body::Process(process) = &mut self.bodies[index] {
                dead.extend(process.look().map(|exit| (tid, exit.clone())));
            }
        }
        dead
    }

    /// Tells all workers to stop, without waiting for them.
    pub fn request_stop(&self) {
        self.board.request_stop();
    }

    /// Tells all workers to stop (starting them first if they never were), and takes their reports, in
    /// the order of the workers. They share one deadline of 5 s and the slack; one that leaves no report
    /// by then gets a sentinel that says how it ended. What is left of the workers' process groups is
    /// killed.
    ///
    /// Throttled and frozen workers can't stop: see [`CgroupManager::lift_limits`](crate::CgroupManager::lift_limits).
    pub fn stop_and_collect(mut self) -> Result<Vec<WorkerReport>, WorkloadError> {
        self.start()?;
        self.request_stop();
        let deadline = Instant::now() + self.report_time();
        Ok(self.collect_by(deadline))
    }

    /// How long stopping may take.
    pub(crate) fn report_time(&self) -> Duration {
        self.config.report_time()
    }

    /// Takes the reports of workers that were told to stop.
    pub(crate) fn collect_by(mut self, deadline: Instant) -> Vec<WorkerReport> {
        while !self.all_ended() && Instant::now() < deadline {
            self.board.sleep_on_change();
        }
        // Looked at before the kill, which would otherwise pass for how they ended.
        let ended: Vec<Option<WorkerExit>> = self.bodies.iter_mut().map(Body::ended).collect();
        let tids = self.worker_tids();
        let reports = tids.into_iter().zip(ended).enumerate();
        let reports = reports
            .map(|(index, (tid, ended))| {
                let sentinel = |exit| WorkerReport::sentinel(tid, "", exit);
                let report = match (self.board.report(index), ended) {
                    (Ok(report), _) => self.with_declared(index, report),
                    (Err(_), None) => sentinel(WorkerExit::TimedOut),
                    (Err(why), Some(WorkerExit::Exited(0))) => {
                        sentinel(WorkerExit::WaitFailed(why))
                    }
                    (Err(_), Some(exit)) => sentinel(exit),
                };
                let work_type = &self.config.spec.work_type;
                WorkerReport {
                    work_type: work_type.name().to_owned(),
                    cpu_demand: work_type.cpu_demand(),
                    ..report
                }
            })
            .collect();
        self.sweep();
        reports
    }

    /// Adds to a worker's report what was declared for it.
    fn with_declared(&self, index: usize, mut report: WorkerReport) -> WorkerReport {
        let all = self.declared();
        let declared = &all[index];
        report.nice = declared.nice;
        report.nice_changes = declared.nice_changes;
        report.mask_changes = u32::try_from(declared.masks.len()).unwrap_or(u32::MAX);
        for span in &mut report.masks {
            let set = (span.changes as usize).checked_sub(1);
            let mask = set.and_then(|set| declared.masks.get(set));
            span.mask = mask.cloned().flatten();
        }
        if let Some(policy) = &mut report.policy {
            let spec = &self.config.spec;
            policy.kind = spec.sched_policy.kind();
            policy.declared = spec.sched_policy.describe(declared.nice);
        }
        report
    }

    fn all_ended(&mut self) -> bool {
        let board = self.board.clone();
        let mut bodies = self.bodies.iter_mut().enumerate();
        bodies.all(|(index, body)| board.stage(index) == DONE || body.ended().is_some())
    }

    /// Kills what is left of the process groups and reaps their leaders; lets go of threads.
    fn sweep(&mut self) {
        self.board.request_stop();
        let mut processes: Vec<Process> = Vec::new();
        for body in self.bodies.drain(..) {
            match body {
                Body::Process(process) => processes.push(process),
                Body::Thread(thread) if thread.is_finished() => {
                    // Its panics were caught inside; nothing is left to learn.
                    let _ = thread.join();
                }
                // A thread can't be killed. The memory it uses is its own as well.
                Body::Thread(_) => {}
            }
        }
        for process in &processes {
            process.kill_group();
        }
        let deadline = Instant::now() + REAP_DEADLINE;
        while !processes
            .iter_mut()
            .map(Process::reap)
            .fold(true, |all, one| all & one)
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for WorkloadHandle {
    fn drop(&mut self) {
        self.sweep();
    }
}
