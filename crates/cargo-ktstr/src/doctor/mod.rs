//! `cargo ktstr doctor`: what is fine here, what is missing, and what to do about it.

mod checks;
mod kernels;

use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use ktstr_report::ExitCode as Code;
use serde_json::json;

use crate::args::DoctorArgs;
use crate::edge::Refusal;
use crate::{environment, format, output, setup};

/// How one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// As it should be.
    Fine,
    /// Tests run, but something else doesn't, or less well.
    Note,
    /// No test can run without it.
    Missing,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Note => "note",
            Self::Missing => "missing",
        }
    }

    const fn style(self) -> Style {
        match self {
            Self::Fine => AnsiColor::Green.on_default().bold(),
            Self::Note => AnsiColor::Yellow.on_default().bold(),
            Self::Missing => AnsiColor::Red.on_default().bold(),
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Check {
    what: &'static str,
    state: State,
    found: String,
    advice: Option<String>,
}

impl Check {
    fn fine(what: &'static str, found: impl Into<String>) -> Self {
        Self {
            what,
            state: State::Fine,
            found: found.into(),
            advice: None,
        }
    }

    fn note(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            what,
            state: State::Note,
            found: found.into(),
            advice: Some(advice.into()),
        }
    }

    fn missing(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            state: State::Missing,
            ..Self::note(what, found, advice)
        }
    }
}

/// Looks at everything and prints what it found.
pub(crate) fn run(args: &DoctorArgs) -> Result<ExitCode, Refusal> {
    let checks = all();
    let fit = tests_can_run(&checks);
    let text = if args.json {
        as_json(&checks, fit)
    } else {
        as_table(&checks, fit)
    };
    output::print(&text)?;
    Ok(if fit { Code::Ok } else { Code::HostUnfit }.into())
}

fn tests_can_run(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.state != State::Missing)
}

fn all() -> Vec<Check> {
    let debian = checks::debian();
    // One that can't be opened has nothing, and is a check of its own.
    let cache = environment::cache().ok();
    let mut all = vec![
        checks::qemu(setup::qemu(cache.as_ref())),
        checks::kvm(),
        checks::nextest(),
        checks::busybox(setup::busybox(cache.as_ref())),
        checks::memory(),
        checks::cpus(),
    ];
    let fetchable = debian.state == State::Fine;
    all.push(debian);
    all.extend(kernels::all(fetchable));
    all
}

fn as_json(checks: &[Check], fit: bool) -> String {
    let checks: Vec<_> = checks
        .iter()
        .map(|check| {
            json!({
                "check": check.what,
                "state": check.state.word(),
                "found": check.found,
                "advice": check.advice,
            })
        })
        .collect();
    format!("{:#}\n", json!({ "tests_can_run": fit, "checks": checks }))
}

/// One line a check, with what to do beneath it.
fn as_table(checks: &[Check], fit: bool) -> String {
    let cells = |check: &Check| {
        let advice = check.advice.as_ref().map(|advice| format!("\n→ {advice}"));
        let found = check.found.clone() + &advice.unwrap_or_default();
        vec![check.state.word().to_owned(), check.what.to_owned(), found]
    };
    let rows: Vec<_> = checks.iter().map(cells).collect();
    let mut states = checks.iter().map(|check| check.state);
    let mut text = String::new();
    for line in format::table(&[], &rows).lines() {
        // Lines of advice start with spaces.
        let state = if line.starts_with(' ') {
            None
        } else {
            states.next()
        };
        let painted = state.and_then(|state| {
            let (style, word) = (state.style(), state.word());
            Some(format!(
                "{style}{word}{style:#}{}",
                line.strip_prefix(word)?
            ))
        });
        text.push_str(painted.as_deref().unwrap_or(line));
        text.push('\n');
    }
    let verdict = if fit {
        "tests can run here"
    } else {
        "tests can't run here yet: see what is missing"
    };
    text + "\n" + verdict + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_to_do_beneath_what_is_wrong() {
        let checks = [
            Check::fine("QEMU", "QEMU 7.2.22"),
            Check::note("busybox", "none", "cargo ktstr setup"),
            Check::missing(
                "cargo-nextest",
                "not installed",
                "cargo install cargo-nextest --locked",
            ),
        ];
        let plain = anstream::adapter::strip_str(&as_table(&checks, false)).to_string();
        insta::assert_snapshot!(plain, @r"
        fine     QEMU           QEMU 7.2.22
        note     busybox        none
                                → cargo ktstr setup
        missing  cargo-nextest  not installed
                                → cargo install cargo-nextest --locked

        tests can't run here yet: see what is missing
        ");
    }

    #[test]
    fn only_what_is_missing_keeps_tests_from_running() {
        let note = Check::note("busybox", "none", "get one");
        let missing = Check::missing("QEMU", "none", "get one");
        assert!(tests_can_run(std::slice::from_ref(&note)));
        assert!(!tests_can_run(&[note, missing]));
    }

    #[test]
    fn json_has_the_same() {
        let json = as_json(&[Check::fine("QEMU", "QEMU 7.2.22")], true);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["tests_can_run"], true);
        assert_eq!(json["checks"][0]["state"], "fine");
    }
}
