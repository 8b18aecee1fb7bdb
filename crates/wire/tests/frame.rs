//! Frames survive any cut of the stream, and damage is named and contained.

use ktstr_report::{CheckResult, WorkerExit, WorkerReport};
use ktstr_wire::frame::{HEADER_BYTES, MAX_PAYLOAD_BYTES};
use ktstr_wire::{
    Decoder, Encoder, FrameError, GuestStage, MAX_REMARK_BYTES, Message, Stream, TestEnd,
};
use proptest::prelude::*;

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let message = prop_oneof![
        "[0-9.]{1,20}".prop_map(|release| Message::Hello { release }),
        Just(Message::Stage(GuestStage::Body)),
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
    let message = Message::Output(Stream::Stderr, vec![0; 64 << 10]);
    let error = Encoder::default().encode(&message).expect_err("too large");
    assert_eq!(
        error.to_string(),
        "the output message of 65541 bytes exceeds the limit of 65536 bytes for its kind"
    );
}

/// A frame whose checksums are right, of any payload.
fn forged(kind: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = b"KTS1".to_vec();
    let len = u32::try_from(payload.len()).expect("small");
    for word in [kind, 0, len, crc32fast::hash(payload)] {
        frame.extend(word.to_le_bytes());
    }
    frame.extend(crc32fast::hash(&frame).to_le_bytes());
    frame.extend(payload);
    frame
}

#[test]
fn fault_d5_a_frame_larger_than_its_kind_allows_is_neither_held_nor_read() {
    let end = Message::Result(TestEnd::default());
    let samples = [
        Message::Remark(String::new()),
        Message::SetupFailed(Vec::new()),
        Message::Output(Stream::Stdout, Vec::new()),
        end,
    ];
    for sample in samples {
        let (kind, limit) = (sample.kind(), Message::max_payload_bytes(sample.kind()));
        let mut payload = postcard::to_stdvec(&sample).expect("small");
        // As many elements as bytes follow: zeros are empty strings, and then some.
        payload.truncate(1);
        payload.extend([0xff, 0xff, 0x7f]);
        payload.resize(MAX_PAYLOAD_BYTES, 0);
        let mut decoder = Decoder::<Message>::default();
        for piece in forged(kind, &payload).chunks(1 << 16) {
            decoder.push(piece);
            while let Some(found) = decoder.next() {
                assert!(found.is_err(), "{}", sample.kind_name());
            }
            let held = decoder.buffered_bytes();
            assert!(held <= HEADER_BYTES + limit + (1 << 16), "{held}");
        }
    }
}

#[test]
fn a_frame_of_one_kind_does_not_carry_a_message_of_another() {
    let chain = Message::SetupFailed(vec![String::new(); 1000]);
    let payload = postcard::to_stdvec(&chain).expect("small");
    let sidecar = Message::Sidecar(Vec::new()).kind();
    let (received, errors) = read(&forged(sidecar, &payload), 4096);
    assert_eq!(received, []);
    let kind = "sidecar";
    assert_eq!(errors, [FrameError::Payload { sequence: 0, kind }]);
    let (received, _) = read(&forged(chain.kind(), &payload), 4096);
    assert_eq!(received, [chain]);
}

#[test]
fn fault_d5_a_long_remark_is_cut_by_its_sender() {
    let remark = Message::Remark("ä".repeat(8 << 20));
    let chain = Message::SetupFailed(vec!["x".repeat(1 << 20), "because".to_owned()]);
    let (received, errors) = read(&stream_of(&[remark, chain]), 4096);
    assert_eq!(errors, []);
    let [Message::Remark(remark), Message::SetupFailed(chain)] = &received[..] else {
        panic!("{received:?}");
    };
    assert!(remark.len() <= MAX_REMARK_BYTES && remark.ends_with("ä […]"));
    assert!(chain[0].ends_with("xx […]"));
    assert_eq!(chain[1], "because");
}

/// What is smallest in a frame and largest in memory.
#[test]
fn fault_d5_a_message_takes_no_more_memory_than_it_says() {
    let check = CheckResult {
        check: String::new(),
        value: None,
        bound: None,
        ..CheckResult::at_most("", 0.0, 0.0, "")
    };
    let worker = WorkerReport::sentinel(0, "", WorkerExit::Completed);
    let growth = [
        (size_of::<CheckResult>(), postcard::to_stdvec(&check)),
        (size_of::<WorkerReport>(), postcard::to_stdvec(&worker)),
        (size_of::<String>(), postcard::to_stdvec("")),
    ]
    .map(|(held, sent)| held / sent.expect("small").len());
    for kind in [5, 6, 12] {
        let limit = Message::max_payload_bytes(kind);
        let held = match kind {
            5 => Message::SetupFailed(Vec::new()).held_bytes(),
            6 => Message::Result(TestEnd::default()).held_bytes(),
            _ => Message::Scheduler(Default::default()).held_bytes(),
        };
        // A vector that grows has room for twice what is in it.
        let most = growth.iter().max().expect("some") * 2 * limit;
        assert!(most <= held, "{growth:?} {most} {held}");
    }
}

#[test]
fn the_result_of_thousands_of_workers_fits() {
    let worker = WorkerReport {
        work_units: u64::MAX,
        cpu_time_ns: u64::MAX,
        run_delay_ns: Some(u64::MAX),
        cpus_used: (0..255).step_by(2).collect(),
        ..WorkerReport::sentinel(i32::MAX, "SpinWait", WorkerExit::Completed)
    };
    let one = postcard::to_stdvec(&worker).expect("small").len();
    let limit = Message::max_payload_bytes(Message::Result(TestEnd::default()).kind());
    assert!(limit / one > 8_000, "{one} bytes a worker");
}
