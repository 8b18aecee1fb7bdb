//! What travels between the two sides of a test.
//!
//! Both ways in [frames](frame) over virtio-console port 1: [`Message`]s from guest to host, [`HostMessage`]s from host
//! to guest, of which the first is the [`Job`]. Both sides are the same build, so nothing here is versioned and the
//! bodies are plain postcard.

pub mod frame;
mod framed;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod host_message;
mod job;
mod message;

pub use frame::{Decoder, Encoder, FrameError};
pub use framed::Framed;
pub use host_message::HostMessage;
pub use job::{
    InnerTest, Job, Modules, OpsField, SHELL_PORT, SchedulerJob, SchedulerStart, Task, WatchdogJob,
};
pub use message::{
    DumpMoment, GuestStage, MAX_REMARK_BYTES, MAX_SCHEDULER_LIVES, Message, Request, Stream,
    TestEnd,
};

/// Name of the virtio-console port that carries the frames, as in /sys/class/virtio-ports/*/name.
pub const FRAME_PORT_NAME: &str = "ktstr.frames";

/// The I/O port by which a guest pauses its whole machine: it puts out a byte there, and by the next instruction one at
/// the port after it.
pub const PAUSE_PORT: u16 = 0xe9;

/// First words of what a dying guest process writes to COM2.
pub const CRASH_MARK: &str = "KTSTR-CRASH: ";
