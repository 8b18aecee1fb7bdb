//! The closed set of messages from guest to host.

use ktstr_report::{AssertResult, SchedulerReport};
use serde::{Deserialize, Serialize};

/// Which of its two outputs a process wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What the guest is about to do, so that a guest that says no more can be described.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Starting the scheduler under test, and waiting until it is attached.
    Attaching,
    /// Running the test's body.
    Body,
    /// Ending the scheduler, and gathering what the kernel said of it.
    Detaching,
    /// Judging what the body left behind: kernel log, CPUs.
    Judging,
    /// Running a command or a shell.
    Command,
    /// Running a test in a machine inside this one.
    Nested,
}

impl Phase {
    /// What the guest does in it, as a clause: `in the body of the test`.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Attaching => "starting the scheduler",
            Self::Body => "in the body of the test",
            Self::Detaching => "ending the scheduler",
            Self::Judging => "judging the state of the machine after the body",
            Self::Command => "running the command",
            Self::Nested => "running the test in a machine inside this one",
        }
    }
}

/// How the body of a test ended, when it ended by itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TestEnd {
    /// What the body returned, with the checks of the machine as a whole.
    pub result: AssertResult,
    /// The error that the body returned instead: its chain of causes, outermost first.
    pub error: Option<Vec<String>>,
}

/// What the guest asks of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// To read the state of the kernel for the test, which calls it by this label.
    Snapshot(String),
    /// To read what a failure dump shows, should the test fail.
    Dump(DumpMoment),
    /// To write a number into a global variable of a BPF program.
    WriteGlobal {
        /// The variable, or a number in it: `stats.per_cpu[3]`.
        path: String,
        /// The number; 0 and 1 for a bool.
        value: i128,
    },
}

/// When the state of the kernel is read for a failure dump. Earlier ones say more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DumpMoment {
    /// The scheduler has just been found to be gone.
    SchedulerGone,
    /// The test's body has ended; the scheduler, if it is still there, is attached.
    BodyEnded,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// PID 1 is up. The first message of every guest.
    Hello {
        /// `uname -r`.
        release: String,
        /// Time since the kernel started, `CLOCK_BOOTTIME`.
        uptime_ns: u64,
    },
    /// The guest enters a phase.
    Phase(Phase),
    /// Something that went less than well, for the report.
    Remark(String),
    /// What a process of the guest wrote.
    Output(Stream, #[serde(with = "bulk")] Vec<u8>),
    /// The guest could not be made ready for the test: a module that won't load, a mount that fails.
    /// The chain of causes, outermost first.
    SetupFailed(Vec<String>),
    /// The test's body ended.
    Result(TestEnd),
    /// The command or shell ended, with this exit status (128 + signal if a signal ended it).
    Exit(u8),
    /// The sidecar of a test that the guest ran as a host, as JSON.
    Sidecar(#[serde(with = "bulk")] Vec<u8>),
    /// The scheduler is attached; the kernel calls it by this name.
    SchedulerAttached(String),
    /// What the scheduler's process printed.
    SchedulerLog(#[serde(with = "bulk")] Vec<u8>),
    /// What became of the scheduler. Its log is empty: it has come already.
    Scheduler(Box<SchedulerReport>),
    /// The failure dump of a test that the guest ran as a host, as JSON.
    FailureDump(#[serde(with = "bulk")] Vec<u8>),
    /// The guest asks for something, and waits for the answer: [`Message::DONE`] or [`Message::NOT_DONE`].
    Request(Request),
    /// The guest has nothing more to say. The machine may be ended.
    Bye,
}

impl Message {
    /// The host's answer to [`Message::Request`]: done.
    pub const DONE: u8 = b'+';

    /// The host's answer to [`Message::Request`]: it could not.
    pub const NOT_DONE: u8 = b'-';

    /// Number of the variant, as in the frame's header.
    pub const fn kind(&self) -> u32 {
        match self {
            Self::Hello { .. } => 1,
            Self::Phase(_) => 2,
            Self::Remark(_) => 3,
            Self::Output(..) => 4,
            Self::SetupFailed(_) => 5,
            Self::Result(_) => 6,
            Self::Exit(_) => 7,
            Self::Bye => 8,
            Self::Sidecar(_) => 9,
            Self::SchedulerAttached(_) => 10,
            Self::SchedulerLog(_) => 11,
            Self::Scheduler(_) => 12,
            Self::Request(_) => 13,
            Self::FailureDump(_) => 14,
        }
    }

    /// Name of the variant.
    pub const fn kind_name(&self) -> &'static str {
        Self::name_of_kind(self.kind())
    }

    /// Name of the variant with this number, `unknown` if there is none.
    pub const fn name_of_kind(kind: u32) -> &'static str {
        match kind {
            1 => "hello",
            2 => "phase",
            3 => "remark",
            4 => "output",
            5 => "setup-failed",
            6 => "result",
            7 => "exit",
            8 => "bye",
            9 => "sidecar",
            10 => "scheduler-attached",
            11 => "scheduler-log",
            12 => "scheduler",
            13 => "request",
            14 => "failure-dump",
            _ => "unknown",
        }
    }
}

/// Bytes as one block: the derived form goes byte by byte, which an emulated CPU feels.
mod bulk {
    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        struct Block;

        impl Visitor<'_> for Block {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a block of bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }

        deserializer.deserialize_bytes(Block)
    }
}
