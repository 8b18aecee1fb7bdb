//! The closed set of messages from guest to host.

use std::borrow::Cow;

use ktstr_report::{AssertResult, Phase, SchedulerReport};
use serde::{Deserialize, Serialize};

use crate::framed::{Framed, MAX_PAYLOAD_BYTES};

/// How often a scheduler may be attached in one test. Each time has a report of its own.
pub const MAX_SCHEDULER_LIVES: u32 = 16;

/// Longest remark, in bytes of text. The sender cuts a longer one.
pub const MAX_REMARK_BYTES: usize = 8 << 10;

/// Longest chain of causes of [`Message::SetupFailed`], in bytes of text. The sender cuts a longer one.
const MAX_CHAIN_BYTES: usize = 48 << 10;

/// How much larger a structured message can be in memory than in its frame: an empty string is one byte there and
/// 24 here, and a vector that grows holds twice what is in it.
const MAX_GROWTH: usize = 64;

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
pub enum GuestStage {
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
    InnerHost,
}

impl GuestStage {
    /// What the guest does in it, as a clause: `in the body of the test`.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Attaching => "starting the scheduler",
            Self::Body => "in the body of the test",
            Self::Detaching => "ending the scheduler",
            Self::Judging => "judging the state of the machine after the body",
            Self::Command => "running the command",
            Self::InnerHost => "running the test in a machine inside this one",
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

impl Request {
    /// Whether the guest pauses its machine as soon as it has asked, so that what is read is the moment that was meant.
    /// The host releases it before it answers.
    pub const fn is_at_a_pause(&self) -> bool {
        match self {
            Self::Snapshot(_) | Self::Dump(_) => true,
            Self::WriteGlobal { .. } => false,
        }
    }
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
    },
    /// The guest enters a stage.
    Stage(GuestStage),
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
    /// What became of the scheduler in a life that was over before the body was; another may follow. Its log has come.
    SchedulerDetached(Box<SchedulerReport>),
    /// A phase of the body begins or ends.
    Phase {
        /// Which.
        phase: Phase,
        /// Whether it begins.
        begins: bool,
    },
    /// The failure dump of a test that the guest ran as a host, as JSON.
    FailureDump(#[serde(with = "bulk")] Vec<u8>),
    /// The guest asks for something, and waits for the [answer](crate::HostMessage::Answer).
    Request(Request),
    /// A frame to the guest was damaged; the text says how. The guest ends.
    LinkDamaged(String),
    /// The guest has nothing more to say. The machine may be ended.
    Bye,
}

impl Message {
    /// Number of the variant, as in the frame's header.
    pub const fn kind(&self) -> u32 {
        match self {
            Self::Hello { .. } => 1,
            Self::Stage(_) => 2,
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
            Self::SchedulerDetached(_) => 16,
            Self::Phase { .. } => 17,
            Self::LinkDamaged(_) => 15,
        }
    }

    /// Largest payload of a frame of this kind. Only what one host tells another is as large as a frame can be.
    pub const fn max_payload_bytes(kind: u32) -> usize {
        match kind {
            // Hello, scheduler-attached: a name. Link-damaged: a line.
            1 | 10 | 15 => 4 << 10,
            // Stage, exit, bye, phase.
            2 | 7 | 8 | 17 => 16,
            // Remark: its text and the text's length.
            3 => MAX_REMARK_BYTES + 16,
            // Output, scheduler-log: read in pieces of 16 KiB. Setup-failed.
            4 | 5 | 11 => 64 << 10,
            // Result, of thousands of workers.
            6 => 4 << 20,
            // Scheduler, with a dump of 1 MiB.
            12 | 16 => 2 << 20,
            // Request: a label or the path of a variable.
            13 => 8 << 10,
            // Sidecar, failure-dump, and what this build does not know.
            _ => MAX_PAYLOAD_BYTES,
        }
    }

    /// Memory that the message takes, in bytes; for a structured one what its kind takes at most.
    pub fn held_bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Output(_, bytes)
                | Self::Sidecar(bytes)
                | Self::SchedulerLog(bytes)
                | Self::FailureDump(bytes) => bytes.capacity(),
                Self::Hello { release: text, .. }
                | Self::Remark(text)
                | Self::LinkDamaged(text)
                | Self::SchedulerAttached(text) => text.capacity(),
                Self::Stage(_)
                | Self::Exit(_)
                | Self::Phase { .. }
                | Self::Request(_)
                | Self::Bye => 0,
                Self::SetupFailed(_)
                | Self::Result(_)
                | Self::Scheduler(_)
                | Self::SchedulerDetached(_) => Self::max_payload_bytes(self.kind()) * MAX_GROWTH,
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
            2 => "stage",
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
            15 => "link-damaged",
            16 => "scheduler-detached",
            17 => "phase",
            _ => "unknown",
        }
    }
}

impl Framed for Message {
    const KIND_OF_VARIANT: &'static [u32] =
        &[1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 16, 17, 14, 13, 15, 8];

    fn kind(&self) -> u32 {
        self.kind()
    }

    fn name_of_kind(kind: u32) -> &'static str {
        Self::name_of_kind(kind)
    }

    fn max_payload_bytes(kind: u32) -> usize {
        Self::max_payload_bytes(kind)
    }

    fn shortened(&self) -> Cow<'_, Self> {
        match self {
            Self::Remark(text) if text.len() > MAX_REMARK_BYTES => {
                Cow::Owned(Self::Remark(cut(text, MAX_REMARK_BYTES)))
            }
            Self::SetupFailed(chain)
                if chain.iter().map(String::len).sum::<usize>() > MAX_CHAIN_BYTES =>
            {
                let each = MAX_CHAIN_BYTES / chain.len();
                Cow::Owned(Self::SetupFailed(
                    chain.iter().map(|text| cut(text, each)).collect(),
                ))
            }
            _ => Cow::Borrowed(self),
        }
    }
}

/// The beginning of `text`, in `max_bytes`, with a word that the rest is missing.
fn cut(text: &str, max_bytes: usize) -> String {
    const CUT: &str = " […]";
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(max_bytes.saturating_sub(CUT.len()));
    format!("{}{CUT}", &text[..end])
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_is_known_by_its_first_byte() {
        let request = Request::Dump(DumpMoment::BodyEnded);
        let all = [
            Message::Hello {
                release: String::new(),
            },
            Message::Stage(GuestStage::Body),
            Message::Remark(String::new()),
            Message::Output(Stream::Stdout, Vec::new()),
            Message::SetupFailed(Vec::new()),
            Message::Result(TestEnd::default()),
            Message::Exit(0),
            Message::Sidecar(Vec::new()),
            Message::SchedulerAttached(String::new()),
            Message::SchedulerLog(Vec::new()),
            Message::Scheduler(Box::default()),
            Message::SchedulerDetached(Box::default()),
            Message::Phase {
                phase: Phase::BASELINE,
                begins: true,
            },
            Message::FailureDump(Vec::new()),
            Message::Request(request),
            Message::LinkDamaged(String::new()),
            Message::Bye,
        ];
        assert_eq!(all.len(), Message::KIND_OF_VARIANT.len());
        for message in all {
            let payload = postcard::to_stdvec(&message).unwrap();
            let kind = message.kind();
            assert!(Message::is_payload_of(kind, &payload), "{message:?}");
            assert!(!Message::is_payload_of(kind + 1, &payload), "{message:?}");
        }
    }
}
