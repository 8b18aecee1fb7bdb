//! Commands to a QEMU that runs.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use ktstr_vmm::ControlError;
use serde_json::Value;

use super::qmp;
use super::shared::{Reply, Shared};

/// How long QEMU may take to answer. Its main loop shares a lock with emulated devices, and the host may be
/// busy.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why QEMU did not do as told.
#[derive(Debug, thiserror::Error)]
pub(super) enum QemuError {
    #[error("QEMU refused: {0}")]
    Refused(String),
    #[error("QEMU's answer is not understood at {0:?}")]
    NotUnderstood(String),
    #[error("the guest holds its machine, and QEMU with it")]
    Held,
}

/// What came of a command.
#[derive(Debug)]
pub(super) enum Carried {
    /// It was carried out, with this answer.
    Out(Value),
    /// QEMU comes to it when it is released from what its guest holds.
    Later,
}

/// Our end of QEMU's control stream.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) shared: Arc<Shared>,
    pub(super) stream: UnixStream,
    pub(super) reply_timeout: Duration,
}

impl Control {
    pub(super) fn new(shared: Arc<Shared>, stream: UnixStream) -> Self {
        Self {
            shared,
            stream,
            reply_timeout: REPLY_TIMEOUT,
        }
    }

    /// Has QEMU carry out a command now, and gives its answer.
    pub(super) fn command(
        &self,
        action: &'static str,
        command: &str,
        arguments: Option<&Value>,
    ) -> Result<Value, ControlError> {
        match self.carry_out(action, command, arguments, || Ok(()))? {
            Carried::Out(answer) => Ok(answer),
            Carried::Later => Err(ControlError::failed(action)(QemuError::Held)),
        }
    }

    /// Sends a command, does `then`, and waits for QEMU to carry the command out, unless the guest holds QEMU.
    pub(super) fn carry_out(
        &self,
        action: &'static str,
        command: &str,
        arguments: Option<&Value>,
        then: impl FnOnce() -> io::Result<()>,
    ) -> Result<Carried, ControlError> {
        let (id, reply) = self
            .shared
            .expect_reply()
            .ok_or(ControlError::Ended { action })?;
        let sent = self
            .send(&qmp::request(command, arguments, id))
            .and_then(|()| then());
        let reply = sent.map_err(ControlError::failed(action)).and_then(|()| {
            // Who notes the hold tells those who wait by then.
            if self.shared.is_held() {
                return Ok(Reply::Held);
            }
            let reply = reply.recv_timeout(self.reply_timeout);
            reply.map_err(|error| match error {
                RecvTimeoutError::Timeout => ControlError::Timeout {
                    action,
                    what: "QEMU".to_owned(),
                    timeout: self.reply_timeout,
                },
                RecvTimeoutError::Disconnected => ControlError::Ended { action },
            })
        });
        self.shared.forget_reply(id);
        match reply? {
            Reply::Done(answer) => Ok(Carried::Out(answer)),
            Reply::Refused(why) => Err(ControlError::failed(action)(QemuError::Refused(why))),
            Reply::Held => Ok(Carried::Later),
        }
    }

    /// Takes a `stop` back that QEMU may still come to: it carries out commands in their order.
    pub(super) fn take_stop_back(&self) {
        let Some((id, _)) = self.shared.expect_reply() else {
            return;
        };
        let sent = self.send(&qmp::request("cont", None, id));
        self.shared.forget_reply(id);
        if let Err(error) = sent {
            let trouble =
                format!("QEMU may have stopped the guest and takes no more commands: {error}");
            self.shared.give_up(trouble);
        }
    }

    fn send(&self, request: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(self.reply_timeout))?;
        (&self.stream).write_all(request)
    }
}
