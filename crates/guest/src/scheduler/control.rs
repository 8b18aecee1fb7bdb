//! The scheduler of one test, over all of its lives.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ktstr_report::AssertResult;
use ktstr_scenario::{LoadStop, SchedulerControl, SchedulerControlError};
use ktstr_wire::{Message, SchedulerJob, SchedulerStart};

use super::life::{self, Finished, Life, Start};
use crate::link::{Link, LinkError};

/// More lives than a test has a use for. Each has a report of its own.
const MAX_LIVES: u32 = ktstr_wire::MAX_SCHEDULER_LIVES;

/// Starts the scheduler, and starts and ends it as the test asks.
pub(crate) struct Schedulers {
    link: Arc<Link>,
    load_stop: LoadStop,
    state: Mutex<State>,
}

struct State {
    job: SchedulerJob,
    /// The number of the last life.
    lives: u32,
    current: Option<Life>,
    /// What the lives that are over mean for the test.
    judged: AssertResult,
}

/// Whether there is a scheduler to run the test under.
pub(crate) enum Started {
    /// It is attached.
    Attached(Arc<Schedulers>),
    /// It never was; the host has the report, and this is what it means for the test.
    Failed(AssertResult),
}

impl fmt::Debug for Schedulers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedulers").finish_non_exhaustive()
    }
}

impl Schedulers {
    /// Starts the scheduler's first life. `load_stop` ends the load when the scheduler goes.
    pub(crate) fn start(
        job: &SchedulerJob,
        link: &Arc<Link>,
        load_stop: &LoadStop,
    ) -> Result<Started, LinkError> {
        match life::start(job, 1, link, load_stop)? {
            Start::Attached(life) => Ok(Started::Attached(Arc::new(Self {
                link: Arc::clone(link),
                load_stop: load_stop.clone(),
                state: Mutex::new(State {
                    job: job.clone(),
                    lives: 1,
                    current: Some(*life),
                    judged: AssertResult::default(),
                }),
            }))),
            Start::Failed(failed) => {
                let Finished { report, result } = *failed;
                link.send(&Message::Scheduler(Box::new(report)))?;
                Ok(Started::Failed(result))
            }
        }
    }

    /// Ends the last life, and judges all.
    pub(crate) fn finish(&self) -> Result<AssertResult, LinkError> {
        let mut state = self.lock();
        if let Some(life) = state.current.take() {
            let Finished { report, result } = life.finish(false)?;
            state.judged.merge(result);
            self.link.send(&Message::Scheduler(Box::new(report)))?;
        }
        Ok(std::mem::take(&mut state.judged))
    }

    fn begin(&self, state: &mut State) -> Result<(), SchedulerControlError> {
        if state.lives >= MAX_LIVES {
            return Err(SchedulerControlError::TooOften { times: MAX_LIVES });
        }
        state.lives += 1;
        // A load that begins from here on is under the new life.
        self.load_stop.withdraw();
        let started = life::start(&state.job, state.lives, &self.link, &self.load_stop);
        match started.map_err(SchedulerControlError::link)? {
            Start::Attached(life) => {
                state.current = Some(*life);
                Ok(())
            }
            Start::Failed(finished) => {
                let why = finished.report.sentence();
                self.over(state, *finished)?;
                Err(SchedulerControlError::NotAttached { why })
            }
        }
    }

    fn end(&self, state: &mut State) -> Result<(), SchedulerControlError> {
        let life = state
            .current
            .take()
            .ok_or(SchedulerControlError::Detached)?;
        let finished = life.finish(true).map_err(SchedulerControlError::link)?;
        self.over(state, finished)
    }

    /// A life is over before the body is.
    fn over(&self, state: &mut State, finished: Finished) -> Result<(), SchedulerControlError> {
        state.judged.merge(finished.result);
        let report = Message::SchedulerDetached(Box::new(finished.report));
        self.link.send(&report).map_err(SchedulerControlError::link)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic ends the machine, so a poisoned lock is seen only on the way out.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SchedulerControl for Schedulers {
    fn attach(&self) -> Result<(), SchedulerControlError> {
        let mut state = self.lock();
        match state.current {
            Some(_) => Err(SchedulerControlError::Attached),
            None => self.begin(&mut state),
        }
    }

    fn detach(&self) -> Result<(), SchedulerControlError> {
        self.end(&mut self.lock())
    }

    fn restart(&self) -> Result<(), SchedulerControlError> {
        let mut state = self.lock();
        self.end(&mut state)?;
        self.begin(&mut state)
    }

    fn replace(&self, args: &[String]) -> Result<(), SchedulerControlError> {
        let mut state = self.lock();
        match &mut state.job.start {
            SchedulerStart::Program(argv) => {
                argv.truncate(1);
                argv.extend_from_slice(args);
            }
            SchedulerStart::Builtin { .. } => return Err(SchedulerControlError::NoProgram),
        }
        if state.current.is_some() {
            self.end(&mut state)?;
        }
        self.begin(&mut state)
    }
}
