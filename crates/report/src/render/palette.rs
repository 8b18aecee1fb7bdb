//! Colours, decided once.

use std::ffi::OsStr;

use anstyle::{AnsiColor, Style};

use crate::Outcome;

/// The styles to paint with. The default paints nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Palette {
    pass: Style,
    fail: Style,
    inconclusive: Style,
    skip: Style,
    pub(super) strong: Style,
    pub(super) faint: Style,
}

impl Palette {
    /// No escape sequences.
    pub const PLAIN: Self = Self {
        pass: Style::new(),
        fail: Style::new(),
        inconclusive: Style::new(),
        skip: Style::new(),
        strong: Style::new(),
        faint: Style::new(),
    };

    /// The terminal's own 16 colours.
    pub const COLORED: Self = Self {
        pass: AnsiColor::Green.on_default().bold(),
        fail: AnsiColor::Red.on_default().bold(),
        inconclusive: AnsiColor::Yellow.on_default().bold(),
        skip: AnsiColor::Cyan.on_default().bold(),
        strong: Style::new().bold(),
        faint: Style::new().dimmed(),
    };

    /// The palette for a stream: colours if it is a terminal. `no_color` is the value of `NO_COLOR`
    /// (<https://no-color.org>), which turns them off; else `clicolor_force`, that of `CLICOLOR_FORCE`, turns them on
    /// everywhere.
    pub fn for_stream(
        is_terminal: bool,
        no_color: Option<&OsStr>,
        clicolor_force: Option<&OsStr>,
    ) -> Self {
        let refused = no_color.is_some_and(|value| !value.is_empty());
        let forced = clicolor_force.is_some_and(|value| !value.is_empty() && value != "0");
        if !refused && (forced || is_terminal) {
            Self::COLORED
        } else {
            Self::PLAIN
        }
    }

    pub(super) fn outcome(&self, outcome: Outcome) -> Style {
        match outcome {
            Outcome::Pass => self.pass,
            Outcome::Fail => self.fail,
            Outcome::Inconclusive => self.inconclusive,
            Outcome::Skip => self.skip,
        }
    }

    pub(super) fn label(&self, outcome: Outcome) -> String {
        paint(self.outcome(outcome), outcome.label())
    }
}

pub(super) fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_colours_unless_the_user_says_otherwise() {
        let choose = |terminal, no_color: Option<&str>, force: Option<&str>| {
            Palette::for_stream(terminal, no_color.map(OsStr::new), force.map(OsStr::new))
                == Palette::COLORED
        };
        assert!(choose(true, None, None));
        assert!(!choose(false, None, None));
        assert!(!choose(true, Some("1"), None));
        assert!(choose(true, Some(""), None));
        assert!(choose(false, None, Some("1")));
        assert!(!choose(false, None, Some("0")));
        assert!(!choose(false, Some("1"), Some("1")));
    }
}
