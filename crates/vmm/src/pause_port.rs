//! The port by which a guest pauses its machine.

use std::fmt;

/// Called by the thread of a vCPU, each time its guest has paused the machine. It must return at once, and call
/// nothing of the machine.
pub type OnPause = Box<dyn Fn() + Send + Sync>;

/// A byte other than 0 that a CPU writes there parks it with all others, before its next instruction.
pub(crate) struct PausePort {
    pub(crate) port: u16,
    pub(crate) on_pause: OnPause,
}

impl PausePort {
    /// Whether an `out` instruction pauses the machine.
    pub(crate) fn is_hit(&self, port: u16, data: &[u8]) -> bool {
        port == self.port && data.first().is_some_and(|&byte| byte != 0)
    }
}

impl fmt::Debug for PausePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PausePort({:#x})", self.port)
    }
}
