//! A row of steps: each with a header while it runs and a line in the table at the end.

use std::io::{IsTerminal, stderr};
use std::process::Command;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use comfy_table::{Table, presets};

use crate::process::{display, run};

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It found nothing wrong.
    Passed,
    /// It found something wrong, or could not run.
    Failed(String),
    /// It could not look, for a reason that is not the project's fault.
    NotChecked(String),
}

/// Steps that have been run. A failure stops none of the others, so one run shows all that is wrong.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    done: Vec<Done>,
}

#[derive(Debug)]
struct Done {
    name: &'static str,
    end: End,
    elapsed: Duration,
}

impl Steps {
    /// Runs a step that is one command: it passes if the command exits with 0.
    pub(crate) fn command(&mut self, name: &'static str, mut command: Command) {
        let text = display(&command);
        self.step(name, &text, || {
            let status = run(&mut command)?;
            Ok(if status.success() {
                End::Passed
            } else {
                End::Failed(format!("`{text}` ended with {status}"))
            })
        });
    }

    /// Runs a step.
    pub(crate) fn step(
        &mut self,
        name: &'static str,
        doing: &str,
        run: impl FnOnce() -> Result<End>,
    ) {
        eprintln!(
            "\n{}",
            painted(Style::new().bold(), &format!("==> {name}: {doing}"))
        );
        let started = Instant::now();
        let end = run().unwrap_or_else(|error| End::Failed(format!("{error:#}")));
        let elapsed = started.elapsed();
        let (style, word, why) = end.shown();
        let because = if why.is_empty() {
            String::new()
        } else {
            format!(" ({why})")
        };
        let word = painted(style, word);
        eprintln!("{name}: {word}{because} after {}", seconds(elapsed));
        self.done.push(Done { name, end, elapsed });
    }

    /// Whether no step failed.
    pub(crate) fn all_passed(&self) -> bool {
        let failed = |done: &Done| matches!(done.end, End::Failed(_));
        !self.done.iter().any(failed)
    }

    /// The closing table.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let mut total = Duration::ZERO;
        for Done { name, end, elapsed } in &self.done {
            let (_, word, why) = end.shown();
            table.add_row([name, word, &seconds(*elapsed), why]);
            total += *elapsed;
        }
        table.add_row([
            "all",
            if self.all_passed() {
                "passed"
            } else {
                "FAILED"
            },
            &seconds(total),
        ]);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table.trim_fmt()
    }
}

impl End {
    fn shown(&self) -> (Style, &'static str, &str) {
        match self {
            Self::Passed => (AnsiColor::Green.on_default(), "passed", ""),
            Self::Failed(why) => (AnsiColor::Red.on_default().bold(), "FAILED", why),
            Self::NotChecked(why) => (AnsiColor::Yellow.on_default().bold(), "NOT CHECKED", why),
        }
    }
}

/// `12.3 s`, `4 min 05 s`.
pub(crate) fn seconds(elapsed: Duration) -> String {
    match elapsed.as_secs() {
        0..60 => format!("{:.1} s", elapsed.as_secs_f64()),
        seconds => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}

fn painted(style: Style, text: &str) -> String {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if stderr().is_terminal() && !refused {
        format!("{style}{text}{style:#}")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_runs_and_one_failure_fails_all() {
        let mut steps = Steps::default();
        steps.command("first", Command::new("false"));
        steps.command("gone", Command::new("/nowhere/program"));
        steps.step("offline", "look", || {
            Ok(End::NotChecked("no network".to_owned()))
        });
        assert!(!steps.all_passed());
        steps.command("last", Command::new("true"));
        let ends: Vec<&End> = steps.done.iter().map(|done| &done.end).collect();
        assert!(matches!(
            ends[..],
            [
                End::Failed(_),
                End::Failed(_),
                End::NotChecked(_),
                End::Passed
            ]
        ));
        let table = steps.table();
        assert!(
            table.contains("NOT CHECKED") && table.contains("no network"),
            "{table}"
        );
        assert!(table.contains("can't run `program`"), "{table}");
    }

    #[test]
    fn what_is_not_checked_fails_nothing() {
        let mut steps = Steps::default();
        steps.step("offline", "look", || {
            Ok(End::NotChecked("no network".to_owned()))
        });
        assert!(steps.all_passed());
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(seconds(Duration::from_millis(12_340)), "12.3 s");
        assert_eq!(seconds(Duration::from_secs(245)), "4 min 05 s");
    }
}
