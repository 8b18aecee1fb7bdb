//! What happens while a test or a command runs: a closed set of events, in the order of time. The sidecar, the terminal,
//! progress and the log are made of them; who runs something prints nothing.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ktstr_machine::End;
use ktstr_report::{BootAttempt, EngineInfo};
use ktstr_topology::NumaMemory;
use ktstr_wire::{GuestStage, Stream};

use crate::cpu_queue::Waiting;

/// Something happened.
#[derive(Debug)]
pub enum RunEvent<'a> {
    /// The initramfs is packed, and the machine's memory is known.
    Prepared {
        /// Its memory.
        memory: &'a NumaMemory,
    },
    /// The machine waits for host CPUs or memory: told after a second, after five, and each minute.
    Queued(&'a Waiting),
    /// The machine is started.
    Booting {
        /// How often it was started, with this time.
        attempt: u32,
        /// How long it had waited in the queue.
        queued: Duration,
    },
    /// The terminal of an interactive machine is there. Who wants it clones the stream.
    Terminal(&'a UnixStream),
    /// PID 1 of the guest spoke.
    Booted {
        /// `uname -r` of the guest.
        release: &'a str,
    },
    /// The guest went on to a stage.
    Stage(GuestStage),
    /// The scheduler under test is attached.
    Attached {
        /// The kernel's name for it.
        ops: &'a str,
    },
    /// The guest's process printed something.
    Output {
        /// Where.
        stream: Stream,
        /// What.
        bytes: &'a [u8],
        /// The machine's deadline: what nobody has taken by then is lost.
        until: Option<Instant>,
    },
    /// The host took a snapshot that the guest had asked for.
    Snapshot {
        /// The guest's name for it.
        label: &'a str,
    },
    /// A boot met a fault of the emulator, and is tried again.
    Retry(&'a BootAttempt),
    /// The engine could not start this machine, and another one tries.
    Fallback {
        /// The other engine.
        engine: &'a EngineInfo,
        /// What the report says of it.
        remark: &'a str,
    },
    /// Something that the report says beside its checks.
    Remark(&'a str),
    /// The machine is gone.
    Ended(&'a End),
}

/// Is told what happens, on the thread that drives the machine: it must return at once, but from an
/// [`RunEvent::Output`], which it may take until the event's deadline for.
pub trait RunObserver {
    /// Takes the next event.
    fn event(&mut self, event: &RunEvent<'_>);
}

/// Each is told.
impl RunObserver for Vec<Box<dyn RunObserver>> {
    fn event(&mut self, event: &RunEvent<'_>) {
        for observer in self {
            observer.event(event);
        }
    }
}

/// Nobody wants to know.
impl RunObserver for () {
    fn event(&mut self, _: &RunEvent<'_>) {}
}
