//! Fuzz targets: what must hold whatever bytes the other side sends, in whatever pieces they arrive.
//!
//! `fuzz/` runs it under libFuzzer, the test here with the seeds and what was once found. Not public API: it is
//! there only for tests and with the feature `fuzzing`.

use std::fmt::Debug;

use arbitrary::{Result, Unstructured};
use ktstr_topology::{NumaSpec, Topology};

use crate::frame::{HEADER_BYTES, MAX_PAYLOAD_BYTES, OversizeError};
use crate::{Decoder, Encoder, Framed, GuestStage, HostMessage, Job, Message, Stream, Task};

/// Frames, damaged and forged ones, and what is between them, as a guest may send them to the host. No bytes are
/// misread; a message that was sent whole arrives, in order, unless something passed for a frame that it was part of.
pub fn frames(input: &[u8]) {
    frames_of::<Message>(input);
}

/// The same in the other direction. What the host sends is no attack, but the bytes pass a driver of the guest's kernel.
pub fn host_frames(input: &[u8]) {
    frames_of::<HostMessage>(input);
}

fn frames_of<M: Example>(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let cuts: [u8; 4] = input.arbitrary().unwrap_or_default();
    let mut sent = Sent::default();
    // Ends early where the input ends within an operation.
    let _ = sent.build::<M>(&mut input);
    let received = read::<M>(&sent.stream, cuts);
    if !sent.has_anything {
        // Forged payloads may be messages as well.
        let mut received = received.iter();
        for message in &sent.messages {
            let arrived = received.any(|candidate| candidate == message);
            assert!(arrived, "{message:?} was sent and did not arrive");
        }
    }
}

#[derive(Default)]
struct Sent {
    encoder: Encoder,
    stream: Vec<u8>,
    /// Encodings of the whole messages: they can be compared where a message holds what is not a number.
    messages: Vec<Vec<u8>>,
    /// Bytes of any kind, which may pass for the start of a frame.
    has_anything: bool,
}

impl Sent {
    fn build<M: Example>(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        while !input.is_empty() {
            let [operation, len]: [u8; 2] = input.arbitrary()?;
            let len = usize::from(len);
            match operation % 8 {
                0..3 => {
                    let message = M::example(operation >> 3, input.bytes(len)?);
                    let frame = self.frame(&message);
                    self.messages.push(encoding(&message));
                    self.stream.extend(frame);
                }
                // No byte that a frame could begin with.
                3 => {
                    let noise = input.bytes(len)?.iter().map(|byte| byte & 0x3f);
                    self.stream.extend(noise);
                }
                4 => {
                    let mut frame = self.frame(&M::example(operation >> 3, input.bytes(len)?));
                    let at = HEADER_BYTES + len % (frame.len() - HEADER_BYTES);
                    frame[at] ^= 1 << (operation >> 5);
                    self.stream.extend(frame);
                }
                5 => {
                    let mut frame = self.frame(&M::small(operation));
                    frame[len % HEADER_BYTES] ^= 1 << (operation >> 5);
                    self.stream.extend(frame);
                }
                6 => {
                    let kind = M::FIRST_KIND + u32::from(operation >> 3) % 12;
                    let sequence = input.arbitrary()?;
                    let payload = input.bytes(len)?;
                    // One too long for its kind is no frame: its payload is searched for frames.
                    self.has_anything |= len > M::max_payload_bytes(kind);
                    self.stream.extend(forged(kind, sequence, payload));
                }
                _ => {
                    self.has_anything = true;
                    self.stream.extend(input.bytes(len)?);
                }
            }
        }
        Ok(())
    }

    fn frame<M: Framed>(&mut self, message: &M) -> Vec<u8> {
        let frame: std::result::Result<_, OversizeError> = self.encoder.encode(message);
        frame.expect("the message is small")
    }
}

/// Messages to send.
trait Example: Framed + Debug {
    /// Kinds of forged frames begin here.
    const FIRST_KIND: u32;

    fn example(kind: u8, bytes: &[u8]) -> Self;

    /// One whose payload is some bytes.
    fn small(byte: u8) -> Self;
}

impl Example for Message {
    const FIRST_KIND: u32 = 0;

    fn example(kind: u8, bytes: &[u8]) -> Self {
        match kind % 6 {
            0 => Self::Remark(String::from_utf8_lossy(bytes).into_owned()),
            1 => Self::Output(Stream::Stdout, bytes.to_vec()),
            2 => Self::Stage(GuestStage::Judging),
            3 => Self::SetupFailed(vec![String::from_utf8_lossy(bytes).into_owned(); 2]),
            4 => Self::Sidecar(bytes.to_vec()),
            _ => Self::Bye,
        }
    }

    fn small(byte: u8) -> Self {
        Self::Exit(byte)
    }
}

impl Example for HostMessage {
    const FIRST_KIND: u32 = 96;

    fn example(kind: u8, bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        match kind % 2 {
            0 => Self::Job(Box::new(Job {
                topology: Topology::SINGLE,
                numa: NumaSpec::default()
                    .resolve(&Topology::SINGLE, 64)
                    .expect("one node"),
                environment: vec![("NAME".to_owned(), text.clone())],
                task: Task::Shell {
                    argv: vec![text],
                    interactive: kind & 2 != 0,
                },
            })),
            _ => Self::small(kind >> 1),
        }
    }

    fn small(byte: u8) -> Self {
        Self::Answer {
            done: byte & 1 != 0,
        }
    }
}

/// A frame whose checksums are right, of any payload.
fn forged(kind: u32, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = b"KTS1".to_vec();
    let len = u32::try_from(payload.len()).expect("at most 255");
    for word in [kind, sequence, len, crc32fast::hash(payload)] {
        frame.extend(word.to_le_bytes());
    }
    frame.extend(crc32fast::hash(&frame).to_le_bytes());
    frame.extend(payload);
    frame
}

/// Encodings of the messages that arrive.
fn read<M: Example>(mut stream: &[u8], cuts: [u8; 4]) -> Vec<Vec<u8>> {
    let mut decoder = Decoder::<M>::default();
    let mut received = Vec::new();
    let mut cuts = cuts.iter().cycle();
    while let Some(cut) = cuts.next().filter(|_| !stream.is_empty()) {
        let (piece, rest) = stream.split_at(stream.len().min(usize::from(*cut) + 1));
        stream = rest;
        decoder.push(piece);
        while let Some(found) = decoder.next() {
            match found {
                Ok(message) => received.push(same_again(&message)),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
        assert!(decoder.buffered_bytes() <= HEADER_BYTES + MAX_PAYLOAD_BYTES + piece.len());
    }
    let left = decoder.finish();
    assert_eq!(decoder.buffered_bytes(), 0, "{left:?}");
    received
}

/// What was read is what its encoding says.
fn same_again<M: Framed>(message: &M) -> Vec<u8> {
    let bytes = encoding(message);
    let again: M = postcard::from_bytes(&bytes).expect("it was encoded here");
    assert_eq!(encoding(&again), bytes);
    bytes
}

fn encoding<M: Framed>(message: &M) -> Vec<u8> {
    postcard::to_stdvec(message).expect("messages can be encoded")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn kept_inputs_of_the_frames_hold() {
        hold("frames", super::frames);
    }

    #[test]
    fn kept_inputs_of_the_hosts_frames_hold() {
        hold("host_frames", super::host_frames);
    }

    fn hold(name: &str, target: fn(&[u8])) {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
        let mut inputs = 0;
        for kept in ["seeds", "regressions"] {
            let Ok(folder) = fs::read_dir(fuzz.join(kept).join(name)) else {
                continue;
            };
            for file in folder {
                let path = file.unwrap().path();
                eprintln!("{}", path.display());
                target(&fs::read(path).unwrap());
                inputs += 1;
            }
        }
        assert!(inputs > 0, "there is no input for {name}");
        target(&[]);
    }
}
