//! What an attribute is.

use std::ops::RangeInclusive;

/// One attribute of `#[ktstr_test]`.
#[derive(Clone, Debug)]
pub struct Attribute {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// Where its value goes.
    pub fills: Fills,
    /// What a test needs to declare it.
    pub needs: Needs,
    /// What holds without it, for the documentation.
    pub default: &'static str,
    /// What it means, for the documentation.
    pub text: &'static str,
}

/// What an attribute takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Takes {
    /// `true` or `false`; the bare name is `true`.
    Flag,
    /// A whole number of this range.
    Whole(RangeInclusive<u64>),
    /// A number of seconds, with or without a fraction. It becomes milliseconds.
    Seconds,
    /// A text, such as this one.
    Text(&'static str),
    /// A list of texts, such as this one.
    Texts(&'static str),
    /// A form of its own, which the macro's code for the section parses; written like this.
    Form(&'static str),
}

/// Where the value of an attribute goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fills {
    /// This field of its section's struct.
    Field(&'static str),
    /// This field of its section's struct, an `Option`.
    Optional(&'static str),
    /// What the macro's code for the section makes of it.
    Section,
}

/// What a test needs to declare an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// A machine: it is not `host_only`.
    Machine,
    /// A `scheduler`, and so a machine.
    Scheduler,
}

impl Needs {
    /// Whether a `host_only` test can't declare it.
    pub const fn machine(self) -> bool {
        !matches!(self, Self::Nothing)
    }
}
