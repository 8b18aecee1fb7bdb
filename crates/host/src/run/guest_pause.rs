//! A request of the guest that is carried out while the guest has its machine paused.
//!
//! It comes in two halves: the request as a frame, the pause from the engine. Either may be seen first.

use std::time::{Duration, Instant};

use ktstr_wire::Request;

/// How long one half is waited for once the other is there. A guest that may not use its port sends no pause; one that
/// pauses without a request is let go.
const MAX_APART: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(crate) struct GuestPause {
    request: Option<(Request, Instant)>,
    paused: Option<Instant>,
    /// What was acted on alone. The other half may still come.
    acted_on: Option<Half>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Request,
    Pause,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Carry out the request, then release the guest.
    Answer(Request),
    /// Release a guest that asks for nothing.
    Release,
}

impl GuestPause {
    /// The guest asks for something, and is about to pause. Gives back what it asked for before and still waits for.
    pub(crate) fn asked(&mut self, request: Request, now: Instant) -> Option<Request> {
        let earlier = self.request.replace((request, now));
        earlier.map(|(request, _)| request)
    }

    /// The guest asked for something that was refused at once. It pauses all the same.
    pub(crate) fn refused(&mut self) {
        self.acted_on = Some(Half::Request);
    }

    /// The guest has paused.
    pub(crate) fn paused(&mut self, now: Instant) {
        self.paused = Some(now);
    }

    /// When to [`act`](Self::act).
    pub(crate) fn due(&self) -> Option<Instant> {
        let (since, other) = match (&self.request, self.paused) {
            (Some((_, since)), None) => (*since, Half::Pause),
            (None, Some(since)) => (since, Half::Request),
            (_, both) => return both,
        };
        let is_late = self.acted_on == Some(other);
        Some(if is_late { since } else { since + MAX_APART })
    }

    /// What both halves together are for, or one that has waited for long.
    pub(crate) fn act(&mut self, now: Instant) -> Option<Act> {
        self.due().filter(|&due| now >= due)?;
        let (request, paused) = (self.request.take(), self.paused.take());
        self.acted_on = match (self.acted_on, &request, paused) {
            (None | Some(Half::Request), Some(_), None) => Some(Half::Request),
            (None | Some(Half::Pause), None, Some(_)) => Some(Half::Pause),
            _ => None,
        };
        Some(request.map_or(Act::Release, |(request, _)| Act::Answer(request)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(label: &str) -> Request {
        Request::Snapshot(label.to_owned())
    }

    fn answer(label: &str) -> Option<Act> {
        Some(Act::Answer(snapshot(label)))
    }

    #[test]
    fn a_request_is_carried_out_when_both_halves_are_there() {
        let now = Instant::now();
        let mut halves = GuestPause::default();
        assert_eq!((halves.due(), halves.act(now)), (None, None));
        assert_eq!(halves.asked(snapshot("one"), now), None);
        assert_eq!(halves.act(now), None);
        halves.paused(now);
        assert_eq!(halves.act(now), answer("one"));
        assert_eq!((halves.due(), halves.act(now)), (None, None));
        halves.paused(now);
        assert_eq!(halves.act(now), None);
        assert_eq!(halves.asked(snapshot("two"), now), None);
        assert_eq!(halves.act(now), answer("two"));
    }

    #[test]
    fn a_half_that_stays_alone_is_not_waited_for() {
        let now = Instant::now();
        let mut halves = GuestPause::default();
        halves.paused(now);
        assert_eq!(halves.due(), Some(now + MAX_APART));
        assert_eq!(halves.act(now + MAX_APART), Some(Act::Release));
        // The other half comes late, and has nothing to wait for.
        halves.asked(snapshot("one"), now);
        assert_eq!(halves.act(now), answer("one"));
        halves.asked(snapshot("one"), now);
        assert_eq!(halves.act(now), None);
        assert_eq!(halves.act(now + MAX_APART), answer("one"));
        halves.paused(now);
        assert_eq!(halves.act(now), Some(Act::Release));
        halves.asked(snapshot("two"), now);
        assert_eq!(halves.asked(snapshot("three"), now), Some(snapshot("two")));
    }
}
