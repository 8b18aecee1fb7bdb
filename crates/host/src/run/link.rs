//! The host's end of the framed channel, and what the engine tells of the machine.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use ktstr_machine::{End, MachineEvent};
use ktstr_wire::{Decoder, FrameError, Message};

const CHUNK_BYTES: usize = 64 << 10;

/// Events that may wait to be handled. The guest is held back when they are not, so that a flood takes time
/// instead of memory.
const MAX_WAITING: usize = 64;

/// Memory of the messages that may wait, in bytes. One message may have more.
const MAX_WAITING_BYTES: usize = 16 << 20;

/// What comes from a machine's channel.
#[derive(Debug)]
pub(crate) enum Event {
    /// A message came, or a stretch of the stream that isn't one.
    Frame(Result<Message, FrameError>),
    /// The channel is closed: nothing more will come.
    LinkClosed,
}

impl Event {
    fn held_bytes(&self) -> usize {
        match self {
            Self::Frame(Ok(message)) => message.held_bytes(),
            Self::Frame(Err(_)) | Self::LinkClosed => size_of::<Self>(),
        }
    }
}

/// What its driver waits for: events of the channel, and the machine's end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Event>,
    waiting_bytes: usize,
    /// The guest has paused its machine, and the driver has not been told.
    paused: bool,
    /// How the machine ended, and when.
    end: Option<(End, Instant)>,
    /// The driver takes no more.
    closed: bool,
}

/// What a wait gave.
#[derive(Debug)]
pub(crate) enum Next {
    /// The next event of the channel.
    Event(Event),
    /// The guest has paused its machine. Told once for each pause.
    Paused,
    /// The machine has ended, and no event waits.
    Ended,
    /// Nothing until the time.
    Nothing,
}

impl Events {
    /// The next event, or that the machine has ended, by `until`.
    pub(crate) fn next(&self, until: Option<Instant>) -> Next {
        let mut state = self.lock();
        loop {
            if let Some(event) = self.pop(&mut state) {
                return Next::Event(event);
            }
            if state.end.is_some() {
                return Next::Ended;
            }
            if std::mem::take(&mut state.paused) {
                return Next::Paused;
            }
            let Some(waited) = self.wait(state, until) else {
                return Next::Nothing;
            };
            state = waited;
        }
    }

    /// The next event by `until`, whether or not the machine has ended.
    pub(crate) fn next_left(&self, until: Instant) -> Option<Event> {
        let mut state = self.lock();
        loop {
            if let Some(event) = self.pop(&mut state) {
                return Some(event);
            }
            state = self.wait(state, Some(until))?;
        }
    }

    /// Notes what happened to the machine. Of its ends the first one counts.
    pub(crate) fn note(&self, event: MachineEvent) {
        let mut state = self.lock();
        match event {
            MachineEvent::Paused => state.paused = true,
            MachineEvent::Ended(end) => _ = state.end.get_or_insert((end, Instant::now())),
        }
        self.0.changed.notify_all();
    }

    /// How the machine ended, and when.
    pub(crate) fn end(&self) -> Option<(End, Instant)> {
        self.lock().end.clone()
    }

    /// Takes no more: who waits to add an event is let go. How many events waited.
    pub(crate) fn close(&self) -> usize {
        let mut state = self.lock();
        let left = state.waiting.len();
        *state = State {
            end: state.end.take(),
            closed: true,
            ..State::default()
        };
        self.0.changed.notify_all();
        left
    }

    /// Adds an event when there is room for it. Whether anybody takes it.
    fn push(&self, event: Event) -> bool {
        let bytes = event.held_bytes();
        let mut state = self.lock();
        while !state.closed && !state.has_room(bytes) {
            state = self
                .0
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if !state.closed {
            state.waiting_bytes += bytes;
            state.waiting.push_back(event);
            self.0.changed.notify_all();
        }
        !state.closed
    }

    fn pop(&self, state: &mut State) -> Option<Event> {
        let event = state.waiting.pop_front()?;
        state.waiting_bytes = state.waiting_bytes.saturating_sub(event.held_bytes());
        self.0.changed.notify_all();
        Some(event)
    }

    /// Waits for a change; `None` when the time has come.
    fn wait<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        until: Option<Instant>,
    ) -> Option<MutexGuard<'a, State>> {
        let changed = &self.0.changed;
        let Some(until) = until else {
            return Some(changed.wait(state).unwrap_or_else(PoisonError::into_inner));
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        let waited = changed.wait_timeout(state, left);
        Some(waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_room(&self, bytes: usize) -> bool {
        self.waiting.is_empty()
            || self.waiting.len() < MAX_WAITING && self.waiting_bytes + bytes <= MAX_WAITING_BYTES
    }
}

/// Reads frames until the channel closes, on a thread of its own.
pub(crate) fn listen(port: UnixStream, events: Events) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name("ktstr-link".to_owned())
        .spawn(move || read_frames(port, &events))
}

fn read_frames(mut port: UnixStream, events: &Events) {
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
            if !events.push(Event::Frame(frame)) {
                return;
            }
        }
    }
    let left_over = decoder.finish().map(|error| Event::Frame(Err(error)));
    for event in left_over.into_iter().chain([Event::LinkClosed]) {
        if !events.push(event) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use ktstr_wire::{Encoder, Stream, TestEnd};

    use super::*;

    fn stream_of(messages: impl IntoIterator<Item = Message>) -> Vec<u8> {
        let mut encoder = Encoder::default();
        let frames = messages.into_iter().map(|message| encoder.encode(&message));
        frames.flat_map(|frame| frame.unwrap()).collect()
    }

    fn listen_to(stream: Vec<u8>) -> (Events, JoinHandle<()>, JoinHandle<()>) {
        let (ours, mut guest) = UnixStream::pair().unwrap();
        let events = Events::default();
        let listener = listen(ours, events.clone()).unwrap();
        // A guest that is held back is cut off at the end.
        let guest = thread::spawn(move || _ = guest.write_all(&stream));
        (events, listener, guest)
    }

    fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
        let until = Instant::now() + Duration::from_secs(60);
        while !condition() {
            assert!(Instant::now() < until, "{what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The listener sleeps: nothing more comes.
    fn waits_for_room(events: &Events) {
        let mut before = usize::MAX;
        wait_until("the listener waits", || {
            thread::sleep(Duration::from_millis(20));
            let now = events.lock().waiting.len();
            now > 0 && std::mem::replace(&mut before, now) == now
        });
    }

    #[test]
    fn fault_d5_messages_that_wait_have_a_bound_in_bytes() {
        let sidecars = (0..20).map(|_| Message::Sidecar(vec![7; 5 << 20]));
        let (events, listener, guest) = listen_to(stream_of(sidecars));
        waits_for_room(&events);
        let held: usize = {
            let state = events.lock();
            state.waiting.iter().map(Event::held_bytes).sum()
        };
        assert!(held <= MAX_WAITING_BYTES, "{held} bytes wait");
        // All of them come when they are taken.
        let until = Instant::now() + Duration::from_secs(60);
        let mut sidecars = 0;
        while let Some(Event::Frame(frame)) = events.next_left(until) {
            assert!(matches!(frame, Ok(Message::Sidecar(_))), "{frame:?}");
            sidecars += 1;
        }
        assert_eq!(sidecars, 20);
        listener.join().unwrap();
        guest.join().unwrap();
    }

    #[test]
    fn fault_d5_a_structured_message_waits_alone() {
        let results = (0..9).map(|_| Message::Result(TestEnd::default()));
        let (events, listener, guest) = listen_to(stream_of(results));
        waits_for_room(&events);
        assert_eq!(events.lock().waiting.len(), 1);
        events.close();
        listener.join().unwrap();
        guest.join().unwrap();
    }

    #[test]
    fn fault_d1_a_listener_without_room_is_let_go() {
        let line = || Message::Output(Stream::Stdout, b"y".to_vec());
        let (events, listener, guest) = listen_to(stream_of((0..50_000).map(|_| line())));
        let waiting = || events.lock().waiting.len();
        wait_until("there is no more room", || waiting() == MAX_WAITING);
        events.note(MachineEvent::Ended(End::PoweredOff));
        events.note(MachineEvent::Ended(End::Reset));
        assert_eq!(events.end().unwrap().0, End::PoweredOff);
        assert!(matches!(events.next(None), Next::Event(_)));
        assert!(events.close() >= MAX_WAITING - 1);
        listener.join().unwrap();
        guest.join().unwrap();
        assert!(matches!(events.next(None), Next::Ended));
    }
}
