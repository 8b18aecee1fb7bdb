//! Whether a guest's messages come in an order that a guest of ours sends.

use ktstr_wire::{MAX_SCHEDULER_LIVES, Message};

/// Faults that are kept. One is enough to trust nothing.
const MAX_FAULTS: usize = 4;

/// What came so far, and what came out of order. A guest that breaks the order is corrupted, or is not ours.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// Kinds that came, as bits: each of [`ONCE`] may come once.
    came: u32,
    /// Lives of the scheduler that are over.
    lives: u32,
    faults: Vec<String>,
}

/// Messages of which there is one.
const ONCE: [&str; 10] = [
    "hello",
    "setup-failed",
    "result",
    "exit",
    "sidecar",
    "scheduler-attached",
    "scheduler",
    "failure-dump",
    "link-damaged",
    "bye",
];

impl Order {
    /// Takes note of the next message.
    pub(crate) fn take(&mut self, message: &Message) {
        let name = message.kind_name();
        let fault = if self.has("bye") {
            Some("after the last frame")
        } else if self.has("result") && !matches!(message, Message::Bye) {
            Some("after the result")
        } else if self.has(name) && ONCE.contains(&name) {
            Some("a second time")
        } else if name == "scheduler-detached" && self.lives >= MAX_SCHEDULER_LIVES {
            Some("too often")
        } else if !self.has("hello") && !matches!(message, Message::Hello { .. }) {
            Some("before the first frame")
        } else {
            None
        };
        if let Some(when) = fault
            && self.faults.len() < MAX_FAULTS
        {
            self.faults.push(format!("a {name} frame came {when}"));
        }
        if name == "scheduler-detached" {
            // The next life may be attached.
            self.lives += 1;
            self.came &= !bit("scheduler-attached");
        }
        self.came |= bit(name);
    }

    /// What came out of order.
    pub(crate) fn faults(&self) -> &[String] {
        &self.faults
    }

    fn has(&self, name: &str) -> bool {
        self.came & bit(name) != 0
    }
}

/// The bit of a kind of which there is one; none for others.
fn bit(name: &str) -> u32 {
    let at = ONCE.iter().position(|once| *once == name);
    at.map_or(0, |at| 1 << at)
}

#[cfg(test)]
mod tests {
    use ktstr_wire::{GuestStage, TestEnd};

    use super::*;

    fn hello() -> Message {
        Message::Hello {
            release: String::new(),
        }
    }

    fn faults(messages: &[Message]) -> Vec<String> {
        let mut order = Order::default();
        messages.iter().for_each(|message| order.take(message));
        order.faults().to_vec()
    }

    #[test]
    fn what_a_guest_sends_is_in_order() {
        let result = || Message::Result(TestEnd::default());
        let sent = [
            hello(),
            Message::Stage(GuestStage::Attaching),
            Message::SchedulerLog(vec![]),
            Message::SchedulerAttached("x".to_owned()),
            Message::Stage(GuestStage::Body),
            Message::Remark(String::new()),
            Message::Stage(GuestStage::Detaching),
            Message::Scheduler(Box::default()),
            Message::Stage(GuestStage::Judging),
            result(),
            Message::Bye,
        ];
        assert_eq!(faults(&sent), [""; 0]);
    }

    #[test]
    fn what_it_would_not_send_is_a_fault() {
        let result = || Message::Result(TestEnd::default());
        assert_eq!(
            faults(&[hello(), result(), result(), Message::Bye, hello()]),
            [
                "a result frame came after the result",
                "a hello frame came after the last frame"
            ]
        );
        assert_eq!(
            faults(&[result(), hello(), hello()]),
            [
                "a result frame came before the first frame",
                "a hello frame came after the result",
                "a hello frame came after the result",
            ]
        );
    }
}
