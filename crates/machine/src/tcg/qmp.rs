//! QEMU's control protocol: lines of JSON over a socket (QEMU's docs/interop/qmp-spec.txt).

use serde::Deserialize;
use serde_json::Value;

/// Longest line that is read. The registers of 255 vCPUs make about 1 MiB.
pub(crate) const LINE_BYTES: usize = 4 << 20;

/// What QEMU says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    /// The first line: QEMU introduces itself.
    Greeting,
    /// A command was carried out, or refused with a reason.
    Reply {
        id: Option<u64>,
        result: Result<Value, String>,
    },
    /// Something happened.
    Event { name: String, data: EventData },
}

/// The part of an event's data that we look at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct EventData {
    /// Why a guest shut down: `ShutdownCause` in QEMU's qapi/run-state.json.
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

/// The stream is not QMP, or not one that we can follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QmpError {
    #[error("QEMU sent a control line of more than {LINE_BYTES} bytes")]
    LineTooLong,
    #[error("QEMU sent a control line that is not understood: {start:?}")]
    NotQmp { start: String },
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    #[serde(rename = "return")]
    value: Option<Value>,
    error: Option<ErrorLine>,
    event: Option<String>,
    #[serde(default)]
    data: EventData,
    id: Option<u64>,
}

#[derive(Deserialize)]
struct ErrorLine {
    desc: String,
}

/// Cuts the stream into messages.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    partial: Vec<u8>,
}

impl Reader {
    /// Bytes of a line that has not ended.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn held_bytes(&self) -> usize {
        self.partial.len()
    }

    /// Adds bytes of the stream, and gives the messages that are now complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Message>, QmpError> {
        let mut messages = Vec::new();
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            if self.partial.len() + piece.len() > LINE_BYTES {
                return Err(QmpError::LineTooLong);
            }
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.partial);
                let line = line.trim_ascii();
                if !line.is_empty() {
                    messages.push(parse(line)?);
                }
            }
        }
        Ok(messages)
    }
}

fn parse(line: &[u8]) -> Result<Message, QmpError> {
    let not_qmp = || {
        let start = &line[..line.len().min(200)];
        QmpError::NotQmp {
            start: String::from_utf8_lossy(start).into_owned(),
        }
    };
    let parsed: Line = serde_json::from_slice(line).map_err(|_| not_qmp())?;
    if parsed.greeting.is_some() {
        return Ok(Message::Greeting);
    }
    if let Some(name) = parsed.event {
        return Ok(Message::Event {
            name,
            data: parsed.data,
        });
    }
    let result = match (parsed.value, parsed.error) {
        (Some(value), None) => Ok(value),
        (None, Some(error)) => Err(error.desc),
        _ => return Err(not_qmp()),
    };
    Ok(Message::Reply {
        id: parsed.id,
        result,
    })
}

/// The line that asks for `command`.
pub(crate) fn request(command: &str, arguments: Option<&Value>, id: u64) -> Vec<u8> {
    let mut line = serde_json::json!({ "execute": command, "id": id });
    if let Some(arguments) = arguments {
        line["arguments"] = arguments.clone();
    }
    let mut bytes = line.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SESSION: &str = concat!(
        r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}"#,
        "\r\n",
        r#"{"return": {}, "id": 1}"#,
        "\r\n",
        r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#,
        "\r\n",
        r#"{"id": 2, "error": {"class": "GenericError", "desc": "no such thing"}}"#,
        "\r\n",
    );

    fn session() -> Vec<Message> {
        vec![
            Message::Greeting,
            Message::Reply {
                id: Some(1),
                result: Ok(serde_json::json!({})),
            },
            Message::Event {
                name: "SHUTDOWN".to_owned(),
                data: EventData {
                    reason: Some("guest-reset".to_owned()),
                },
            },
            Message::Reply {
                id: Some(2),
                result: Err("no such thing".to_owned()),
            },
        ]
    }

    proptest! {
        #[test]
        fn a_session_is_read_whatever_the_splits(split in 1usize..200) {
            let mut reader = Reader::default();
            let mut messages = Vec::new();
            for chunk in SESSION.as_bytes().chunks(split) {
                messages.extend(reader.feed(chunk).unwrap());
            }
            prop_assert_eq!(messages, session());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Reader::default().feed(&bytes);
        }

        #[test]
        fn damaged_sessions_are_read_or_refused(at in 0..SESSION.len(), byte: u8) {
            let mut bytes = SESSION.as_bytes().to_vec();
            bytes[at] = byte;
            let _ = Reader::default().feed(&bytes);
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut reader = Reader::default();
        let chunk = vec![b' '; 1 << 20];
        let refused = (0..6).find_map(|_| reader.feed(&chunk).err());
        assert_eq!(refused, Some(QmpError::LineTooLong));
        assert!(reader.held_bytes() <= LINE_BYTES);
    }
}
