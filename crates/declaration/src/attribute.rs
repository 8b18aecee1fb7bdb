//! What an attribute is.

use std::ops::RangeInclusive;

use crate::{machine, run, scheduler};

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

/// Attributes that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// [`MachineShape`](crate::MachineShape).
    Shape,
    /// [`Boot`](crate::Boot).
    Boot,
    /// [`Packed`](crate::Packed).
    Packed,
    /// [`Run`](crate::Run).
    Run,
    /// [`Watch`](crate::Watch).
    Watch,
    /// [`SchedulerOptions`](crate::SchedulerOptions).
    Scheduler,
    /// What is of the test itself, and of its checks as a whole.
    Test,
}

impl Section {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 7] = [
        Self::Shape,
        Self::Boot,
        Self::Packed,
        Self::Run,
        Self::Watch,
        Self::Scheduler,
        Self::Test,
    ];

    /// What its attributes are about, for messages.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Shape => "the machine's shape",
            Self::Boot => "how it runs",
            Self::Packed => "what is packed",
            Self::Run => "the run",
            Self::Watch => "what the host watches",
            Self::Scheduler => "the scheduler",
            Self::Test => "the test",
        }
    }

    /// Its attributes.
    pub const fn attributes(self) -> &'static [Attribute] {
        match self {
            Self::Shape => machine::SHAPE,
            Self::Boot => machine::BOOT,
            Self::Packed => machine::PACKED,
            Self::Run => run::RUN,
            Self::Watch => run::WATCH,
            Self::Scheduler => scheduler::SCHEDULER,
            Self::Test => run::TEST,
        }
    }
}

/// All attributes but the checks, with their sections.
pub fn attributes() -> impl Iterator<Item = (Section, &'static Attribute)> {
    Section::ALL.into_iter().flat_map(|section| {
        let attributes = section.attributes().iter();
        attributes.map(move |attribute| (section, attribute))
    })
}

/// The attribute `name`.
pub fn attribute(name: &str) -> Option<&'static Attribute> {
    attributes()
        .map(|(_, attribute)| attribute)
        .find(|attribute| attribute.name == name)
}
