//! What a machine said and how it ended, as one record.

use std::time::Duration;

use ktstr_machine::{BoundedText, End};
use ktstr_wire::{FrameError, GuestStage, Message, TestEnd};

use super::lives::{Lives, printed};
use super::order::Order;
use crate::observe::Observation;

/// What a machine said and how it ended.
#[derive(Debug)]
pub(crate) struct Record {
    /// The guest's kernel, if PID 1 spoke.
    pub(crate) release: Option<String>,
    /// The last stage that it announced.
    pub(crate) stage: Option<GuestStage>,
    /// How the test's body ended.
    pub(crate) result: Option<TestEnd>,
    /// The sidecar of a test that the guest ran as a host.
    pub(crate) sidecar: Option<Vec<u8>>,
    /// What became of the scheduler.
    pub(crate) lives: Lives,
    /// Why the guest could not be made ready.
    pub(crate) setup_failed: Option<Vec<String>>,
    /// Exit status of the command.
    pub(crate) exit: Option<u8>,
    /// Whether the guest said that it is done.
    pub(crate) said_bye: bool,
    /// Remarks of the guest, and of the link.
    pub(crate) remarks: Vec<String>,
    /// Damage on the link.
    pub(crate) frame_errors: Vec<FrameError>,
    /// What the guest says of a damaged frame that the host sent.
    pub(crate) damaged_to_guest: Option<String>,
    /// Damage beyond what is kept.
    pub(crate) more_frame_errors: u64,
    /// Whether the messages came in an order that makes sense.
    pub(crate) order: Order,
    /// What the test printed.
    pub(crate) output: BoundedText,
    /// COM1.
    pub(crate) console: String,
    /// COM2.
    pub(crate) crash: String,
    /// Where its vCPUs and memory lay, of a machine in performance mode.
    pub(crate) performance: Option<String>,
    /// How the machine ended.
    pub(crate) end: End,
    /// From launch to the first message.
    pub(crate) boot: Duration,
    /// From there to the last.
    pub(crate) run: Duration,
    /// From there until the machine was gone.
    pub(crate) teardown: Duration,
    /// The failure dump of a test that the guest ran as a host.
    pub(crate) inner_dump: Option<Vec<u8>>,
    /// What the host saw of its kernel, if it looked.
    pub(crate) observation: Option<Observation>,
    /// Memory of the machine's process beyond guest RAM when the result came, if it was asked for.
    pub(crate) footprint_bytes: Option<u64>,
}

impl Record {
    /// Whether PID 1 spoke.
    pub(crate) fn booted(&self) -> bool {
        self.release.is_some()
    }

    /// Keeps what a message says. Of what comes once the first stands.
    pub(crate) fn keep(&mut self, message: Message) {
        match message {
            Message::Hello { release, .. } => {
                self.release.get_or_insert(release);
            }
            Message::Stage(stage) => self.stage = Some(stage),
            Message::Remark(remark) => self.remarks.push(remark),
            Message::Output(_, bytes) => self.output.push(&bytes),
            Message::SetupFailed(chain) => {
                self.setup_failed.get_or_insert(chain);
            }
            Message::Result(end) => {
                self.result.get_or_insert(end);
            }
            Message::Sidecar(json) => {
                self.sidecar.get_or_insert(json);
            }
            Message::SchedulerAttached(ops) => self.lives.attached(ops),
            Message::SchedulerLog(bytes) => self.lives.printed(&bytes),
            Message::SchedulerDetached(report) => self.lives.detached(*report),
            Message::Scheduler(report) => self.lives.ended(*report),
            Message::Exit(status) => self.exit = Some(status),
            Message::FailureDump(json) => {
                self.inner_dump.get_or_insert(json);
            }
            Message::LinkDamaged(what) => {
                self.damaged_to_guest.get_or_insert(what);
            }
            Message::Bye => self.said_bye = true,
            // Nothing of it is left.
            Message::Request(_) | Message::Phase { .. } => {}
        }
    }
}

pub(crate) fn empty_record() -> Record {
    Record {
        release: None,
        stage: None,
        result: None,
        sidecar: None,
        lives: Lives::default(),
        setup_failed: None,
        exit: None,
        said_bye: false,
        remarks: Vec::new(),
        frame_errors: Vec::new(),
        damaged_to_guest: None,
        more_frame_errors: 0,
        order: Order::default(),
        output: printed(),
        console: String::new(),
        crash: String::new(),
        performance: None,
        end: End::PoweredOff,
        boot: Duration::ZERO,
        run: Duration::ZERO,
        teardown: Duration::ZERO,
        inner_dump: None,
        observation: None,
        footprint_bytes: None,
    }
}
