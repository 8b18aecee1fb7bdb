//! The sections of attributes, and all rows by them.

use crate::attribute::Attribute;
use crate::{machine, run, scheduler};

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
