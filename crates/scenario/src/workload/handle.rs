//! A workload, as the harness holds it.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ktstr_report::{WorkerExit, WorkerReport};
use ktstr_topology::CpuSet;

use super::gate::Gate;
use super::process::Process;
use super::sched_policy::{SchedPolicy, check_range};
use super::seat::{Board, DONE, RUNNING};
use super::spawn;
use super::syscalls::{futex_wait, sched_setaffinity, set_nice};
use super::telemetry::now_ns;
use super::worker::CloneMode;
use super::{WorkType, WorkloadError};

/// How long all workers together may take to begin, before any allowance of the engine.
const READY_DEADLINE: Duration = Duration::from_secs(5);

/// How long all workers together may take to stop and report, before any allowance of the engine.
const REPORT_DEADLINE: Duration = Duration::from_secs(5);

/// How long killed workers may take to be gone. Beyond that the kernel gives them no CPU to die on.
const REAP_DEADLINE: Duration = Duration::from_secs(2);

/// Longest sleep before looking again for workers that died without a word.
const LOOK_SLICE_NS: u64 = 20_000_000;

/// What each worker is and does.
#[derive(Clone, Debug)]
pub struct WorkSpec {
    /// The kind of work.
    pub work_type: WorkType,
    /// The policy it runs under.
    pub sched_policy: SchedPolicy,
    /// Niceness, -20 to 19; for the policies that know it.
    pub nice: i32,
    /// Name of its task (`comm`), cut to 15 bytes by the kernel. `None`: the work type's name.
    pub comm: Option<String>,
}

impl WorkSpec {
    /// Workers of `work_type` with the usual policy, niceness and name.
    pub const fn new(work_type: WorkType) -> Self {
        Self {
            work_type,
            sched_policy: SchedPolicy::Normal,
            nice: 0,
            comm: None,
        }
    }
}

/// A workload to be made.
#[derive(Clone, Debug)]
pub struct WorkloadConfig {
    /// What each worker is and does.
    pub spec: WorkSpec,
    /// How many workers.
    pub workers: usize,
    /// Processes or threads.
    pub clone_mode: CloneMode,
    /// Added to the deadlines for beginning and for stopping (5 s each, for all workers together).
    pub slack: Duration,
    /// Whether each worker allocates memory (64 pages) and tells where that is, for the check `mem_binding`.
    pub tell_memory: bool,
}

impl WorkloadConfig {
    /// `workers` processes that do `work_type`.
    pub const fn new(work_type: WorkType, workers: usize) -> Self {
        Self {
            spec: WorkSpec::new(work_type),
            workers,
            clone_mode: CloneMode::Fork,
            slack: Duration::ZERO,
            tell_memory: false,
        }
    }

    pub(super) fn check(&self) -> Result<(), WorkloadError> {
        let group_size = self.spec.work_type.group_size();
        if self.workers == 0 {
            return Err(WorkloadError::NoWorkers);
        }
        if !self.workers.is_multiple_of(group_size) {
            return Err(WorkloadError::GroupSize {
                work_type: self.spec.work_type.to_string(),
                workers: self.workers,
                group_size,
            });
        }
        check_range("the niceness", i64::from(self.spec.nice), -20, 19)?;
        self.spec.sched_policy.check()
    }
}

#[derive(Debug)]
pub(super) enum Body {
    Process(Process),
    Thread(JoinHandle<()>),
}

/// Workers that were spawned, and wait at a gate or work. Dropping it kills those that are processes,
/// with all that their work started, and tells those that are threads to stop.
#[derive(Debug)]
pub struct WorkloadHandle {
    pub(super) config: WorkloadConfig,
    pub(super) board: Board,
    pub(super) gate: Gate,
    pub(super) bodies: Vec<Body>,
    pub(super) configured: bool,
    pub(super) declared: Mutex<Vec<DeclaredWorker>>,
}

/// What was declared for one worker.
#[derive(Clone, Debug, Default)]
pub(super) struct DeclaredWorker {
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
        let board = Board::new(config.workers).map_err(WorkloadError::SharedMemory)?;
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
        spawn::spawn_all(&mut handle)?;
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
        self.wait_until(deadline, || not_begun() == 0);
        not_begun()
    }

    /// How long beginning may take.
    pub(crate) fn ready_time(&self) -> Duration {
        READY_DEADLINE.saturating_add(self.config.slack)
    }

    /// Iterations of each worker so far.
    pub fn snapshot_iterations(&self) -> Vec<u64> {
        let slots = self.board.slots.iter();
        slots
            .map(|slot| slot.iterations.load(Ordering::Relaxed))
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
    /// place of that in the [`WorkSpec`].
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
        REPORT_DEADLINE.saturating_add(self.config.slack)
    }

    /// Takes the reports of workers that were told to stop.
    pub(crate) fn collect_by(mut self, deadline: Instant) -> Vec<WorkerReport> {
        while !self.all_ended() && Instant::now() < deadline {
            self.sleep_on_change();
        }
        // Looked at before the kill, which would otherwise pass for how they ended.
        let ended: Vec<Option<WorkerExit>> = self.bodies.iter_mut().map(ended).collect();
        let tids = self.worker_tids();
        let reports = tids.into_iter().zip(ended).enumerate();
        let name = self.config.spec.work_type.name();
        let reports = reports
            .map(
                |(index, (tid, ended))| match (self.board.report(index), ended) {
                    (Ok(report), _) => self.with_declared(index, report),
                    (Err(_), None) => WorkerReport::sentinel(tid, name, WorkerExit::TimedOut),
                    (Err(why), Some(WorkerExit::Exited(0))) => {
                        WorkerReport::sentinel(tid, name, WorkerExit::WaitFailed(why))
                    }
                    (Err(_), Some(exit)) => WorkerReport::sentinel(tid, name, exit),
                },
            )
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
        bodies.all(|(index, body)| board.stage(index) == DONE || ended(body).is_some())
    }

    pub(super) fn wait_until(&self, deadline: Instant, mut met: impl FnMut() -> bool) {
        while !met() && Instant::now() < deadline {
            self.sleep_on_change();
        }
    }

    /// Sleeps until a worker comes to another stage, but not long.
    fn sleep_on_change(&self) {
        let changes = self.board.changes();
        let seen = changes.load(Ordering::Acquire);
        futex_wait(changes, seen, now_ns() + LOOK_SLICE_NS);
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

fn ended(body: &mut Body) -> Option<WorkerExit> {
    match body {
        Body::Process(process) => process.look().cloned(),
        Body::Thread(thread) => thread
            .is_finished()
            .then(|| WorkerExit::WaitFailed("its thread ended without a report".to_owned())),
    }
}

impl Drop for WorkloadHandle {
    fn drop(&mut self) {
        self.sweep();
    }
}
