//! What a test asks of a check.

/// A check with a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound<T> {
    /// Turned off by the test.
    Off,
    /// On with the library's bound; left out where the library knows that it says nothing.
    Default(T),
    /// On with the test's own bound, and always judged.
    Set(T),
}

impl<T: Copy> Bound<T> {
    /// The bound, if the check is on.
    pub const fn get(&self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::Default(value) | Self::Set(value) => Some(*value),
        }
    }
}

/// Whether a check without a bound is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// On.
    On,
    /// Turned off by the test.
    Off,
    /// Turned off in the declaration of this scheduler, which ignores by design what it checks.
    OffByScheduler(&'static str),
}

impl Switch {
    /// On or off, as a test says.
    pub const fn of_test(on: bool) -> Self {
        if on { Self::On } else { Self::Off }
    }

    /// Why the check is not judged, if it is off.
    pub fn why_off(&self) -> Option<String> {
        match self {
            Self::On => None,
            Self::Off => Some("turned off by the test".to_owned()),
            Self::OffByScheduler(name) => Some(format!("turned off by scheduler `{name}`")),
        }
    }
}
