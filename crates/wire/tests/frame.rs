//! Frames survive any cut of the stream, and damage is named and contained.

use ktstr_wire::frame::{HEADER_BYTES, MAX_PAYLOAD_BYTES};
use ktstr_wire::{Decoder, Encoder, FrameError, Message, Phase, Stream};
use proptest::prelude::*;

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let message = prop_oneof![
        any::<u64>().prop_map(|uptime_ns| Message::Hello {
            release: "7.3.4".to_owned(),
            uptime_ns
        }),
        Just(Message::Phase(Phase::Body)),
        "[a-z ]{0,40}".prop_map(Message::Remark),
        proptest::collection::vec(any::<u8>(), 0..200)
            .prop_map(|bytes| Message::Output(Stream::Stdout, bytes)),
        any::<u8>().prop_map(Message::Exit),
        Just(Message::Bye),
    ];
    proptest::collection::vec(message, 1..8)
}

fn stream_of(messages: &[Message]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    messages
        .iter()
        .flat_map(|message| encoder.encode(message).expect("small"))
        .collect()
}

fn read(stream: &[u8], piece_bytes: usize) -> (Vec<Message>, Vec<FrameError>) {
    let mut decoder = Decoder::default();
    let (mut messages, mut errors) = (Vec::new(), Vec::new());
    for piece in stream.chunks(piece_bytes) {
        decoder.push(piece);
        while let Some(found) = decoder.next() {
            match found {
                Ok(message) => messages.push(message),
                Err(error) => errors.push(error),
            }
        }
        assert!(decoder.buffered_bytes() <= HEADER_BYTES + MAX_PAYLOAD_BYTES + piece_bytes);
    }
    errors.extend(decoder.finish());
    (messages, errors)
}

proptest! {
    #[test]
    fn messages_survive_any_cut(sent in messages(), piece_bytes in 1usize..64) {
        let (received, errors) = read(&stream_of(&sent), piece_bytes);
        prop_assert_eq!(received, sent);
        prop_assert_eq!(errors, vec![]);
    }

    #[test]
    fn one_flipped_bit_costs_at_most_one_frame(
        sent in messages(), at in any::<prop::sample::Index>(), bit in 0u8..8, piece_bytes in 1usize..64,
    ) {
        let mut stream = stream_of(&sent);
        let at = at.index(stream.len());
        stream[at] ^= 1 << bit;
        let (received, errors) = read(&stream, piece_bytes);
        prop_assert!(!errors.is_empty());
        prop_assert_eq!(received.len(), sent.len() - 1);
        let mut left = sent.iter();
        for message in &received {
            prop_assert!(left.any(|candidate| candidate == message), "{message:?} was not sent");
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(
        stream in proptest::collection::vec(any::<u8>(), 0..400), piece_bytes in 1usize..64,
    ) {
        let (received, _) = read(&stream, piece_bytes);
        prop_assert_eq!(received, vec![]);
    }

    #[test]
    fn garbage_before_a_frame_is_counted(
        garbage in proptest::collection::vec(0u8..0x40, 1..80), piece_bytes in 1usize..64,
    ) {
        let stream = [garbage.clone(), stream_of(&[Message::Bye])].concat();
        let (received, errors) = read(&stream, piece_bytes);
        prop_assert_eq!(received, vec![Message::Bye]);
        prop_assert_eq!(errors, vec![FrameError::Garbage { bytes: garbage.len() }]);
    }
}

#[test]
fn a_damaged_payload_is_named_and_not_read() {
    let sent = [
        Message::Remark("one".to_owned()),
        Message::Exit(7),
        Message::Bye,
    ];
    let mut stream = stream_of(&sent);
    stream[HEADER_BYTES + 2] ^= 0x55;
    let (received, errors) = read(&stream, 4096);
    assert_eq!(received, sent[1..]);
    assert_eq!(
        errors[0].to_string(),
        "frame 0 (remark, 5 bytes) fails its checksum and was not read"
    );
}

#[test]
fn a_missing_frame_leaves_a_gap() {
    let mut encoder = Encoder::default();
    let mut frames = (0..3).map(|code| encoder.encode(&Message::Exit(code)).expect("small"));
    let first = frames.next().expect("three frames");
    let last = frames.nth(1).expect("three frames");
    let (received, errors) = read(&[first, last].concat(), 4096);
    assert_eq!(received, [Message::Exit(0), Message::Exit(2)]);
    assert_eq!(
        errors,
        [FrameError::Gap {
            expected: 1,
            found: 2
        }]
    );
}

#[test]
fn a_message_beyond_the_limit_is_refused_by_the_sender() {
    let message = Message::Output(Stream::Stderr, vec![0; MAX_PAYLOAD_BYTES]);
    let error = Encoder::default().encode(&message).expect_err("too large");
    assert_eq!(error.kind, "output");
}
