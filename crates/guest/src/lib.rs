//! The guest side of a test.
//!
//! The test binary is `/init` of the machine. PID 1 mounts what a test needs, loads modules, opens the
//! link to the host, waits there for its job, and forks the *test process*, in which the body runs. It then only reaps, and ends
//! the machine when the test process is gone. So a body that crashes, or is killed, is reported by PID 1
//! instead of taking the kernel down with it.
//!
//! | leaves by | what |
//! |---|---|
//! | virtio-console port 1 | frames: output, the result (`ktstr-wire`) |
//! | COM2 | a crash: a panic or a fatal signal of PID 1 or the test process |
//! | COM1 | the kernel's console; nothing is written there by the guest's processes |

mod command;
mod crash;
mod end;
mod init;
mod inner_host;
mod io_ports;
mod link;
mod modules;
mod mounts;
mod output;
mod packed;
mod scheduler;
mod test;

pub use init::{is_guest, run};
pub use inner_host::{InnerHostRun, InnerOutcome};
pub use test::{TestCase, TestLookup};
