//! The gate of the vCPU threads as a model: loom runs its source with all interleavings of a few threads, and all orders
//! in which they may see each other's writes. A kick is a notification here. One that comes before its thread enters the
//! guest gets it out at once: the machine repeats its signals until it sees their effect.

#[path = "../src/gate.rs"]
mod gate;

mod end {
    pub(crate) use ktstr_vmm::End;
}

mod arch {
    pub(crate) mod registers {
        pub(crate) use ktstr_vmm::VcpuRegisters;
    }
}

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, Ordering};
    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
}

use std::sync::Arc;
use std::time::Duration;

use ktstr_vmm::{End, VcpuRegisters};
use loom::cell::UnsafeCell;
use loom::sync::{Condvar, Mutex};
use loom::thread::{self, JoinHandle};
use nix::sys::eventfd::EventFd;

use gate::{Gate, Order, Pauser};

/// In the model no time passes: who waits with a time limit waits until it is woken.
const LONG: Duration = Duration::from_secs(3600);

struct Machine {
    gate: Gate,
    /// By CPU: what its guest changes while it runs. Loom fails if anyone else looks at it then.
    guests: Vec<UnsafeCell<u64>>,
    /// By CPU: what gets it out of the guest.
    kicks: Vec<Kick>,
}

/// A signal to a thread. Loom's own notifications don't go together with its condition variables.
#[derive(Default)]
struct Kick {
    came: Mutex<bool>,
    changed: Condvar,
}

impl Kick {
    fn send(&self) {
        *self.came.lock().expect("not poisoned") = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut came = self.came.lock().expect("not poisoned");
        while !*came {
            came = self.changed.wait(came).expect("not poisoned");
        }
        *came = false;
    }
}

type SharedMachine = loom::sync::Arc<Machine>;

/// Runs `body` beside a machine of that many vCPUs, in every way in which threads that could have gone on are stopped no
/// more than `preemptions` times. One more takes the larger models from seconds to minutes.
fn model(vcpus: usize, preemptions: usize, body: impl Fn(&SharedMachine) + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(move || {
        let machine = SharedMachine::new(Machine {
            gate: Gate::new(vcpus, Arc::new(EventFd::new().expect("an event"))),
            guests: (0..vcpus).map(|_| UnsafeCell::new(0)).collect(),
            kicks: (0..vcpus).map(|_| Kick::default()).collect(),
        });
        let threads: Vec<_> = (0..vcpus).map(|index| vcpu(&machine, index)).collect();
        body(&machine);
        for thread in threads {
            thread.join().expect("a vCPU stops");
        }
        let left = machine.gate.left().expect("all have left");
        let rips: Vec<_> = left.iter().map(|registers| registers.rip).collect();
        assert!(rips.into_iter().eq(0..vcpus as u64));
    });
}

/// As `Vcpu::run`.
fn vcpu(machine: &SharedMachine, index: usize) -> JoinHandle<()> {
    let machine = SharedMachine::clone(machine);
    thread::spawn(move || {
        let registers = VcpuRegisters {
            rip: index as u64,
            ..VcpuRegisters::default()
        };
        loop {
            match machine.gate.order() {
                Order::Run => {
                    machine.guests[index].with_mut(|_| ());
                    machine.kicks[index].wait();
                }
                Order::Park => machine.gate.park(index, registers),
                Order::Stop => return machine.gate.leave(index, registers),
            }
        }
    })
}

impl Machine {
    fn kick(&self) {
        self.kicks.iter().for_each(Kick::send);
    }

    fn close(&self) {
        self.gate.close(Pauser::Host);
        self.kick();
    }

    fn end(&self, end: End) {
        self.gate.end(end);
        self.kick();
    }

    /// As `MicroVm::stopped`: whether all are parked, so that their guests can be looked at.
    fn look(&self) -> bool {
        let Some(parked) = self.gate.parked(LONG) else {
            return false;
        };
        for (index, registers) in parked.iter().enumerate() {
            assert_eq!(registers.map(|registers| registers.rip), Some(index as u64));
            self.guests[index].with(|_| ());
        }
        true
    }

    /// All have run on.
    fn nobody_is_parked(&self) {
        let parked = self.gate.parked(Duration::ZERO);
        assert!(parked.is_none_or(|parked| parked.iter().all(Option::is_none)));
    }
}

#[test]
fn a_pause_stops_all_cpus_and_after_it_all_of_them_run_on() {
    model(2, 1, |machine| {
        machine.close();
        assert!(machine.look());
        assert!(machine.gate.is_closed());
        machine.gate.open(Pauser::Host);
        machine.nobody_is_parked();
        machine.end(End::Stopped);
    });
}

#[test]
fn a_pause_after_a_pause_sees_no_cpu_as_it_was_in_the_first() {
    model(1, 3, |machine| {
        for _ in 0..2 {
            machine.close();
            assert!(machine.look());
            machine.gate.open(Pauser::Host);
        }
        machine.end(End::Stopped);
    });
}

#[test]
fn a_guest_that_has_paused_its_machine_waits_for_its_release() {
    model(1, 2, |machine| {
        // As its CPU does.
        machine.gate.close(Pauser::Guest);
        machine.close();
        assert!(machine.look());
        machine.gate.open(Pauser::Host);
        assert!(machine.gate.is_closed_by(Pauser::Guest));
        assert!(machine.look());
        machine.gate.open(Pauser::Guest);
        machine.nobody_is_parked();
        machine.end(End::Stopped);
    });
}

#[test]
fn an_end_during_a_pause_reaches_who_is_parked_and_who_waits() {
    model(1, 2, |machine| {
        let ends = {
            let machine = SharedMachine::clone(machine);
            thread::spawn(move || machine.end(End::Reset))
        };
        machine.close();
        if machine.look() {
            machine.gate.open(Pauser::Host);
        }
        machine.end(End::Stopped);
        let end = machine.gate.wait_for_end();
        assert!(machine.gate.has_ended());
        ends.join().expect("it noted the end");
        assert_eq!(machine.gate.wait_for_end(), end, "the first end stays");
        assert!(machine.gate.parked(LONG).is_none());
    });
}

#[test]
fn the_end_is_told_when_nothing_is_left() {
    model(0, 3, |machine| {
        let told = {
            let machine = SharedMachine::clone(machine);
            thread::spawn(move || machine.gate.finished(LONG))
        };
        machine.end(End::Stopped);
        assert_eq!(machine.gate.finished(Duration::ZERO), None);
        machine.gate.finish();
        assert_eq!(told.join().expect("it is told"), Some(End::Stopped));
    });
}
