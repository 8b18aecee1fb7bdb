//! When samples are taken.

use std::time::{Duration, Instant};

/// What drives a [`Sampler`](crate::Sampler).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The host's clock: a sample at this distance from the one before, whatever the guest does.
    HostInterval(Duration),
    /// The guest: a sample each time that it has paused its machine, and none between. Whoever learns of the pauses
    /// calls [`Sampler::sample`](crate::Sampler::sample).
    GuestPauses,
}

impl Clock {
    /// Time between two samples, if it is fixed.
    pub const fn interval(self) -> Option<Duration> {
        match self {
            Self::HostInterval(interval) => Some(interval),
            Self::GuestPauses => None,
        }
    }

    /// When the sample after the one at `due` is taken, of those that lie ahead: a late one does not make the rest late.
    pub(crate) fn next(self, due: Instant, now: Instant) -> Option<Instant> {
        let interval = self.interval()?;
        let next = due + interval;
        if next > now {
            return Some(next);
        }
        let behind_ns = (now - due).as_nanos();
        let interval_ns = interval.as_nanos().max(1);
        let ahead_ns = (behind_ns / interval_ns + 1).saturating_mul(interval_ns);
        Some(due + Duration::from_nanos(u64::try_from(ahead_ns).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_the_host_lie_on_a_grid() {
        let ms = Duration::from_millis;
        let clock = Clock::HostInterval(ms(10));
        let start = Instant::now();
        assert_eq!(clock.next(start, start), Some(start + ms(10)));
        assert_eq!(clock.next(start, start + ms(10)), Some(start + ms(20)));
        assert_eq!(clock.next(start, start + ms(47)), Some(start + ms(50)));
        assert_eq!(Clock::GuestPauses.next(start, start), None);
    }
}
