//! The host's end of the framed channel.

use std::io::Read;
use std::sync::mpsc::SyncSender;
use std::thread::{self, JoinHandle};
use std::{io, os::unix::net::UnixStream};

use ktstr_machine::End;
use ktstr_wire::{Decoder, FrameError, Message};

const CHUNK_BYTES: usize = 64 << 10;

/// Messages that may wait to be handled. The guest is held back when they are not, so that a flood takes
/// time instead of memory.
pub(crate) const EVENT_QUEUE: usize = 64;

/// What a machine tells its driver.
#[derive(Debug)]
pub(crate) enum Event {
    /// A message came, or a stretch of the stream that isn't one.
    Frame(Result<Message, FrameError>),
    /// The channel is closed: nothing more will come.
    LinkClosed,
    /// The machine ended.
    Ended(End),
}

/// Reads frames until the channel closes, on a thread of its own.
pub(crate) fn listen(port: UnixStream, events: SyncSender<Event>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name("ktstr-link".to_owned())
        .spawn(move || read_frames(port, &events))
}

fn read_frames(mut port: UnixStream, events: &SyncSender<Event>) {
    let mut decoder = Decoder::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match port.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => decoder.push(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // A reset by the machine's end closes the channel as surely as an orderly end.
            Err(_) => break,
        }
        while let Some(frame) = decoder.next() {
            if events.send(Event::Frame(frame)).is_err() {
                return;
            }
        }
    }
    let left_over = decoder.finish().map(|error| Event::Frame(Err(error)));
    for event in left_over.into_iter().chain([Event::LinkClosed]) {
        if events.send(event).is_err() {
            return;
        }
    }
}
