//! Where vCPU threads are stopped, paused and let go, and where their end is noted.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd;

use crate::arch::registers::VcpuRegisters;
use crate::end::End;
use crate::sync::{AtomicBool, Condvar, Mutex, MutexGuard, Ordering};

/// Who pauses a machine. It runs when neither does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pauser {
    Host,
    /// The guest itself, by a port.
    Guest,
}

#[derive(Debug, Default)]
struct State {
    paused_by_host: bool,
    paused_by_guest: bool,
    /// By CPU: the registers of those that are parked.
    parked: Vec<Option<VcpuRegisters>>,
    /// By CPU: the registers of those that were stopped.
    left: Vec<Option<VcpuRegisters>>,
    end: Option<End>,
    /// Everything is torn down.
    finished: bool,
}

impl State {
    fn is_paused(&self) -> bool {
        self.paused_by_host || self.paused_by_guest
    }

    fn paused_by(&mut self, pauser: Pauser) -> &mut bool {
        match pauser {
            Pauser::Host => &mut self.paused_by_host,
            Pauser::Guest => &mut self.paused_by_guest,
        }
    }
}

/// The one place that all vCPU threads pass between two runs of the guest.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether the state must be looked at: false while the guest just runs.
    closed: AtomicBool,
    /// Written to at the end, for who waits for other things as well.
    ended: Arc<EventFd>,
}

/// What a vCPU thread is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Run,
    Park,
    Stop,
}

impl Gate {
    pub(crate) fn new(vcpus: usize, ended: Arc<EventFd>) -> Self {
        Self {
            state: Mutex::new(State {
                parked: vec![None; vcpus],
                left: vec![None; vcpus],
                ..State::default()
            }),
            changed: Condvar::new(),
            closed: AtomicBool::new(false),
            ended,
        }
    }

    /// What a thread is to do before it runs the guest.
    pub(crate) fn order(&self) -> Order {
        if !self.closed.load(Ordering::Acquire) {
            return Order::Run;
        }
        let state = self.lock();
        match (&state.end, state.is_paused()) {
            (Some(_), _) => Order::Stop,
            (None, true) => Order::Park,
            (None, false) => Order::Run,
        }
    }

    /// Waits while the machine is paused.
    pub(crate) fn park(&self, vcpu: usize, registers: VcpuRegisters) {
        let mut state = self.lock();
        state.parked[vcpu] = Some(registers);
        self.changed.notify_all();
        while state.is_paused() && state.end.is_none() {
            state = self.wait(state);
        }
        state.parked[vcpu] = None;
        self.changed.notify_all();
    }

    /// A thread that was told to stop leaves the guest for good.
    pub(crate) fn leave(&self, vcpu: usize, registers: VcpuRegisters) {
        self.lock().left[vcpu] = Some(registers);
    }

    /// Where the vCPUs were when they were stopped; `None` if not all of them were.
    pub(crate) fn left(&self) -> Option<Vec<VcpuRegisters>> {
        self.lock().left.iter().cloned().collect()
    }

    /// Asks all threads to park; they must be kicked as well.
    pub(crate) fn close(&self, pauser: Pauser) {
        let mut state = self.lock();
        *state.paused_by(pauser) = true;
        self.closed.store(true, Ordering::Release);
    }

    /// Ends the pause of `pauser`. If it was the last, the threads run on, and are waited for until they have left.
    pub(crate) fn open(&self, pauser: Pauser) {
        let mut state = self.lock();
        *state.paused_by(pauser) = false;
        if state.is_paused() {
            return;
        }
        if state.end.is_none() {
            self.closed.store(false, Ordering::Release);
        }
        self.changed.notify_all();
        // A guest may pause again before all of its CPUs have left.
        while state.end.is_none() && !state.is_paused() && state.parked.iter().any(Option::is_some)
        {
            state = self.wait(state);
        }
    }

    /// Whether the machine is paused.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().is_paused()
    }

    /// Whether it is paused by `pauser`.
    pub(crate) fn is_closed_by(&self, pauser: Pauser) -> bool {
        *self.lock().paused_by(pauser)
    }

    /// Which CPUs are parked, after at most `timeout`; `None` when the machine has ended.
    pub(crate) fn parked(&self, timeout: Duration) -> Option<Vec<Option<VcpuRegisters>>> {
        let until = Instant::now() + timeout;
        let mut state = self.lock();
        while state.end.is_none() && state.parked.iter().any(Option::is_none) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.wait_timeout(state, left);
        }
        state.end.is_none().then(|| state.parked.clone())
    }

    /// Notes how the machine ended. The first reported end wins.
    pub(crate) fn end(&self, end: End) {
        let mut state = self.lock();
        state.end.get_or_insert(end);
        self.closed.store(true, Ordering::Release);
        self.changed.notify_all();
        // Full only if it was written to 2^64 times and never read.
        let _ = self.ended.write(1);
    }

    /// Whether somebody has noted an end.
    pub(crate) fn has_ended(&self) -> bool {
        self.closed.load(Ordering::Acquire) && self.lock().end.is_some()
    }

    /// Waits until somebody has noted an end.
    pub(crate) fn wait_for_end(&self) -> End {
        let mut state = self.lock();
        loop {
            if let Some(end) = &state.end {
                return end.clone();
            }
            state = self.wait(state);
        }
    }

    /// Notes that nothing of the machine is left.
    pub(crate) fn finish(&self) {
        self.lock().finished = true;
        self.changed.notify_all();
    }

    /// How the machine ended, if nothing of it is left after at most `timeout`.
    pub(crate) fn finished(&self, timeout: Duration) -> Option<End> {
        let until = Instant::now().checked_add(timeout);
        let mut state = self.lock();
        while !state.finished {
            state = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.wait(state),
                Some(Duration::ZERO) => return None,
                Some(left) => self.wait_timeout(state, left),
            };
        }
        state.end.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_timeout<'a>(
        &self,
        state: MutexGuard<'a, State>,
        timeout: Duration,
    ) -> MutexGuard<'a, State> {
        self.changed
            .wait_timeout(state, timeout)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }
}
