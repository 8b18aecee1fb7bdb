//! Renderings for a person at a terminal. Everything that a guest can send is cleaned of control
//! characters on the way, so a test can't redraw the terminal or fake a verdict.

mod palette;
mod phases;
mod quantity;
mod reasons;
mod report;
mod stats;
mod summary;
mod text;

use std::path::Path;

use crate::{Outcome, RunSummary, Sidecar};

pub use palette::Palette;

/// Turns results into text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Renderer<'a> {
    palette: Palette,
    columns: Option<usize>,
    log: Option<&'a Path>,
}

impl<'a> Renderer<'a> {
    /// A renderer that paints with `palette`.
    pub fn new(palette: Palette) -> Self {
        Self {
            palette,
            columns: None,
            log: None,
        }
    }

    /// The same for a test whose harness has written a log: its report names it.
    #[must_use]
    pub fn with_log(self, log: Option<&'a Path>) -> Self {
        Self { log, ..self }
    }

    /// The same for a terminal with so many columns: a table that is wider becomes a list.
    #[must_use]
    pub fn within(self, columns: usize) -> Self {
        Self {
            columns: Some(columns),
            ..self
        }
    }

    /// What to print for a test, with a final newline. A pass or a skip is one line; all else is a report
    /// with the checks that decided, the workers' figures, the guest's output and console, and how to run
    /// only this test again. `path` is where the sidecar was written.
    pub fn test(&self, sidecar: &Sidecar, path: Option<&Path>) -> String {
        match sidecar.outcome {
            Outcome::Pass | Outcome::Skip => self.line(sidecar) + "\n",
            Outcome::Fail | Outcome::Inconclusive => {
                report::report(self.palette, sidecar, path, self.log)
            }
        }
    }

    /// The test in one line, without a newline.
    pub fn line(&self, sidecar: &Sidecar) -> String {
        report::line(self.palette, sidecar)
    }

    /// The closing summary of a run: a table with a row a test, what could not be read, what was checked
    /// nowhere, and the totals as the last line.
    pub fn summary(&self, summary: &RunSummary) -> String {
        summary::summary(self.palette, self.columns, summary)
    }
}
