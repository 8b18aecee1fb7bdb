//! The port by which a guest pauses its machine.

use std::fmt;

/// Called by the thread of a vCPU, each time its guest has paused the machine. It must return at once, and call
/// nothing of the machine.
pub type OnPause = Box<dyn Fn() + Send + Sync>;

/// A CPU that puts out anything there is parked with all others, before its next instruction.
pub(crate) struct PausePort {
    pub(crate) port: u16,
    pub(crate) on_pause: OnPause,
}

impl fmt::Debug for PausePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PausePort({:#x})", self.port)
    }
}
