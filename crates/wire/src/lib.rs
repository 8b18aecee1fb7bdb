//! What travels between the two sides of a test.
//!
//! From guest to host: [`Message`]s in [frames](frame) over virtio-console port 1. From host to guest:
//! one [`Job`], in a file of the initramfs. Both sides are the same build, so nothing here is versioned
//! and the bodies are plain postcard.

pub mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod job;
mod message;

pub use frame::{Decoder, Encoder, FrameError};
pub use job::{
    Job, JobError, Module, NestedTest, OpsField, SHELL_PORT, SchedulerJob, SchedulerStart, Task,
    WatchdogJob,
};
pub use message::{DumpMoment, GuestStage, MAX_REMARK_BYTES, Message, Request, Stream, TestEnd};

/// Name of the virtio-console port that carries the frames, as in /sys/class/virtio-ports/*/name.
pub const FRAME_PORT_NAME: &str = "ktstr.frames";

/// First words of what a dying guest process writes to COM2.
pub const CRASH_MARK: &str = "KTSTR-CRASH: ";
