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
