//! The closed set of messages from host to guest.

use serde::{Deserialize, Serialize};

use crate::Job;
use crate::framed::Framed;

/// One message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum HostMessage {
    /// What to do. The first message to every guest, sent once it has said [hello](crate::Message::Hello).
    Job(Box<Job>),
    /// To the [request](crate::Message::Request) that the guest waits for: whether the host could do it.
    Answer {
        /// Whether it is done.
        done: bool,
    },
}

impl Framed for HostMessage {
    const KIND_OF_VARIANT: &'static [u32] = &[101, 102];

    fn kind(&self) -> u32 {
        match self {
            Self::Job(_) => 101,
            Self::Answer { .. } => 102,
        }
    }

    fn name_of_kind(kind: u32) -> &'static str {
        match kind {
            101 => "job",
            102 => "answer",
            _ => "unknown",
        }
    }

    fn max_payload_bytes(kind: u32) -> usize {
        match kind {
            // Job: a few kilobytes, and the environment that the user passes on.
            101 => 1 << 20,
            // Answer, and what this build does not know.
            _ => 16,
        }
    }
}

#[cfg(test)]
mod tests {
    use ktstr_topology::{NumaSpec, Topology};

    use super::*;
    use crate::Task;

    #[test]
    fn every_variant_is_known_by_its_first_byte() {
        let numa = NumaSpec::default().resolve(&Topology::SINGLE, 64);
        let job = Job {
            topology: Topology::SINGLE,
            numa: numa.unwrap(),
            environment: Vec::new(),
            task: Task::Shell {
                argv: Vec::new(),
                interactive: false,
            },
        };
        let all = [
            HostMessage::Job(Box::new(job)),
            HostMessage::Answer { done: true },
        ];
        assert_eq!(all.len(), HostMessage::KIND_OF_VARIANT.len());
        for message in all {
            let payload = postcard::to_stdvec(&message).unwrap();
            let kind = message.kind();
            assert!(HostMessage::is_payload_of(kind, &payload), "{message:?}");
            assert!(
                !HostMessage::is_payload_of(kind + 1, &payload),
                "{message:?}"
            );
            assert_ne!(HostMessage::name_of_kind(kind), "unknown");
        }
    }
}
