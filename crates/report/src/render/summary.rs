//! The closing summary of a run.

use std::fmt::Write;

use comfy_table::CellAlignment;

use super::palette::{Palette, paint};
use super::quantity::{count, wall_ms};
use super::reasons::by_reason;
use super::stats::{indented, table};
use super::text::clean_line;
use crate::{Outcome, RunSummary, TestSummary};

const HEADER: [&str; 7] = [
    "outcome", "test", "machine", "time", "judged", "not", "remarks",
];
const REMARK_CHARS: usize = 100;
const BOOTED_AGAIN: &str = "booted again";

pub(super) fn summary(palette: Palette, columns: Option<usize>, summary: &RunSummary) -> String {
    let mut out = String::new();
    let columns = columns.unwrap_or(usize::MAX);
    if !summary.tests.is_empty() {
        let mut table = table(&HEADER);
        table.add_rows(summary.tests.iter().map(row));
        for column in table.column_iter_mut().skip(3).take(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let table = indented(&table, "");
        if table.lines().all(|line| line.chars().count() <= columns) {
            out.push_str(&painted(palette, summary, &table));
        } else {
            out.push_str(&list(palette, columns, summary));
        }
        out.push('\n');
    }
    for test in summary.tests.iter().filter(|test| test.boot_retries > 0) {
        let label = paint(palette.outcome(Outcome::Inconclusive), BOOTED_AGAIN);
        let (test, why) = (
            clean_line(&test.test),
            clean_line(&test.boot_faults.join("; ")),
        );
        let text = format!("{test}: {why}");
        if BOOTED_AGAIN.len() + 2 + text.chars().count() <= columns {
            _ = writeln!(out, "{label}  {text}");
        } else {
            _ = writeln!(out, "{label}  {test}");
            out.push_str(&wrapped(&why, "  ", columns));
        }
    }
    for other in &summary.others.failed {
        let text = format!("{}: {}", other.test, other.reason);
        _ = writeln!(
            out,
            "{}  {}",
            palette.label(Outcome::Fail),
            clean_line(&text)
        );
    }
    for reason in &summary.unstored {
        let label = paint(palette.outcome(Outcome::Fail), "not stored");
        _ = writeln!(out, "{label}  {}", clean_line(reason));
    }
    for damaged in &summary.unreadable {
        let label = paint(palette.outcome(Outcome::Fail), "unreadable");
        _ = writeln!(out, "{label}  {}", clean_line(damaged));
    }
    let nowhere = summary.checked_nowhere.iter();
    let nowhere = nowhere.map(|(check, reasons)| (check.as_str(), reasons.join("; ")));
    for (reasons, checks) in by_reason(nowhere) {
        let label = paint(palette.faint, "checked nowhere");
        let text = format!("{} ({reasons})", checks.join(", "));
        _ = writeln!(out, "{label}  {}", clean_line(&text));
    }
    _ = writeln!(out, "{}", totals(palette, summary));
    out
}

/// What the table says, a test after the other, in lines of at most `columns` where words allow it.
fn list(palette: Palette, columns: usize, summary: &RunSummary) -> String {
    const INDENT: &str = "  ";
    let mut out = String::new();
    for test in &summary.tests {
        let label = palette.label(test.outcome);
        _ = writeln!(out, "{label} {}", clean_line(&test.test));
        let facts = format!(
            "{} · {} · {} judged, {} not",
            test.topology,
            wall_ms(test.total_ms),
            count(test.judged, "check"),
            test.not_judged
        );
        for text in [facts, remarks(test)] {
            out.push_str(&wrapped(&text, INDENT, columns));
        }
    }
    out
}

/// `text` in lines that begin with `indent` and have at most `columns`, broken between words.
fn wrapped(text: &str, indent: &str, columns: usize) -> String {
    let mut out = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let len = line.chars().count() + 1 + word.chars().count();
        if !line.is_empty() && indent.len() + len > columns {
            _ = writeln!(out, "{indent}{line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        _ = writeln!(out, "{indent}{line}");
    }
    out
}

fn row(test: &TestSummary) -> Vec<String> {
    vec![
        test.outcome.label().to_owned(),
        clean_line(&test.test),
        test.topology.to_string(),
        wall_ms(test.total_ms),
        test.judged.to_string(),
        test.not_judged.to_string(),
        remarks(test),
    ]
}

fn remarks(test: &TestSummary) -> String {
    let mut parts = Vec::new();
    if let Some(reason) = &test.reason {
        let reason = clean_line(reason);
        let mut short: String = reason.chars().take(REMARK_CHARS).collect();
        if short.len() < reason.len() {
            short.push('…');
        }
        parts.push(short);
    }
    if test.attempts > 1 {
        parts.push(format!("worst of {} attempts", test.attempts));
    }
    if test.boot_retries > 0 {
        parts.push(count(test.boot_retries, "failed boot"));
    }
    parts.join("; ")
}

/// Every row is one line that starts with its outcome; the header comes first.
fn painted(palette: Palette, summary: &RunSummary, table: &str) -> String {
    let mut lines = table.lines();
    let mut out = String::new();
    if let Some(header) = lines.next() {
        _ = writeln!(out, "{}", paint(palette.faint, header));
    }
    for (line, test) in lines.zip(&summary.tests) {
        let label = test.outcome.label();
        let rest = line.strip_prefix(label).unwrap_or(line);
        _ = writeln!(out, "{}{rest}", palette.label(test.outcome));
    }
    out
}

/// `3 passed, 1 failed, 0 inconclusive, 1 skipped`; what is not zero is painted.
fn totals(palette: Palette, summary: &RunSummary) -> String {
    let others = &summary.others;
    let left_nothing = summary.tests.is_empty() && summary.unreadable.is_empty();
    if left_nothing && others.failed.is_empty() {
        return "no test was run".to_owned();
    }
    let totals = summary.totals();
    let mut parts = vec![
        (totals.passed, Outcome::Pass, "passed"),
        (totals.failed, Outcome::Fail, "failed"),
        (totals.inconclusive, Outcome::Inconclusive, "inconclusive"),
        (totals.skipped, Outcome::Skip, "skipped"),
    ];
    if !summary.unreadable.is_empty() {
        parts.push((summary.unreadable.len(), Outcome::Fail, "unreadable"));
    }
    let parts: Vec<String> = parts
        .into_iter()
        .map(|(number, outcome, word)| {
            let text = format!("{number} {word}");
            match number {
                0 => text,
                _ => paint(palette.outcome(outcome), &text),
            }
        })
        .collect();
    let parts = parts.join(", ");
    match others.passed {
        0 => parts,
        passed => format!("{parts}; {passed} passed that are not `#[ktstr_test]`"),
    }
}
