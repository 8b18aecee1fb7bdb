//! What the handle of a machine on QEMU shares with its thread.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::eventfd::{EfdFlags, EventFd};
use serde_json::Value;

use super::pause_pipe::PausePipe;
use crate::end_cell::EndCell;
use crate::machine::{End, StopReason};
use crate::serial_watch::SerialLogs;

/// What comes of a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    Done(Value),
    /// QEMU's words.
    Refused(String),
    /// Nothing for now: the guest holds its machine, and QEMU with it.
    Held,
}

pub(crate) struct Shared {
    pub(crate) logs: SerialLogs,
    pub(crate) ended: EndCell,
    state: Mutex<State>,
    wake: EventFd,
    /// Only of a machine whose guest has a port for it.
    pause_pipe: Option<PausePipe>,
}

#[derive(Default)]
struct State {
    /// Why QEMU is of no more use.
    trouble: Option<String>,
    /// QEMU's answer with the registers of the vCPUs, from before the watchdog's kill.
    last_registers: Option<Value>,
    next_id: u64,
    waiting: HashMap<u64, Sender<Reply>>,
}

impl Shared {
    pub(crate) fn new(pause_pipe: Option<PausePipe>) -> io::Result<Arc<Self>> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Arc::new(Self {
            logs: SerialLogs::default(),
            ended: EndCell::default(),
            state: Mutex::default(),
            wake: EventFd::from_flags(flags)?,
            pause_pipe,
        }))
    }

    /// Asks the thread to end the machine. The first reason counts.
    pub(crate) fn stop(&self, reason: StopReason) {
        self.ended.ask_to_stop(reason);
        self.wake();
    }

    /// Has the thread end a machine that can't be told to run on.
    pub(crate) fn give_up(&self, trouble: String) {
        self.lock().trouble.get_or_insert(trouble);
        self.wake();
    }

    /// Why the machine was given up.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// QEMU's answer with the registers, from before the watchdog's kill.
    pub(crate) fn last_registers(&self) -> Option<Value> {
        self.lock().last_registers.clone()
    }

    pub(crate) fn note_last_registers(&self, answer: Value) {
        self.lock().last_registers = Some(answer);
    }

    /// Tells everyone how the machine ended.
    pub(crate) fn note_end(&self, end: End) {
        self.ended.set(end);
        // Whoever waits for a reply learns by the closed channel that none will come.
        self.lock().waiting.clear();
    }

    /// A number for a request, and where its reply will come; `None` once the machine has ended.
    pub(crate) fn expect_reply(&self) -> Option<(u64, Receiver<Reply>)> {
        let mut state = self.lock();
        // Under the lock: who notes the end takes it afterwards, and finds this one waiting.
        if self.ended.get().is_some() {
            return None;
        }
        // The thread's own first request has number 0.
        state.next_id += 1;
        let id = state.next_id;
        let (sender, receiver) = mpsc::channel();
        state.waiting.insert(id, sender);
        Some((id, receiver))
    }

    /// Hands a reply to who waits for it. Who asked may have given up.
    pub(crate) fn reply(&self, id: u64, reply: Reply) {
        if let Some(sender) = self.lock().waiting.remove(&id) {
            let _ = sender.send(reply);
        }
    }

    /// Nobody waits for the reply with this number any more.
    pub(crate) fn forget_reply(&self, id: u64) {
        self.lock().waiting.remove(&id);
    }

    /// What becomes readable when the guest holds its machine.
    pub(crate) fn pause_fd(&self) -> Option<BorrowedFd<'_>> {
        self.pause_pipe.as_ref().map(PausePipe::fd)
    }

    /// Whether the guest holds its machine, and QEMU with it.
    pub(crate) fn is_held(&self) -> bool {
        self.pause_pipe.as_ref().is_some_and(PausePipe::is_held)
    }

    /// Whether the guest has come to hold its machine since this was last asked. Who waits for a reply is told: it
    /// would come only after the release.
    pub(crate) fn take_notice_of_hold(&self) -> io::Result<bool> {
        let notice = self.pause_pipe.as_ref().map(PausePipe::take_notice);
        let is_held = notice.transpose()?.unwrap_or(false);
        if is_held {
            for (_, sender) in self.lock().waiting.drain() {
                let _ = sender.send(Reply::Held);
            }
        }
        Ok(is_held)
    }

    /// Lets a guest run on that holds its machine.
    pub(crate) fn release(&self) -> io::Result<()> {
        self.pause_pipe.as_ref().map_or(Ok(()), PausePipe::release)
    }

    /// Readable from the first wake-up on: a stop is noted once.
    pub(crate) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn wake(&self) {
        // Fails only when the counter is full, and then the thread is awake already.
        let _ = self.wake.write(1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("logs", &self.logs)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
