//! The last lines of the terminal, kept for the command while another program writes above them.
//!
//! The terminal is told to scroll only the rows above (DECSTBM, as apt does for its progress bar), so that nextest and
//! its bar need not know. Each change is one write, which saves the cursor and puts it back.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use crate::terminal::WindowSize;

/// Rows that are kept.
const ROWS: u16 = 4;

/// A terminal of fewer rows is left alone.
const MIN_TERMINAL_ROWS: u16 = 12;

const SAVE_CURSOR: &str = "\x1b7";
const RESTORE_CURSOR: &str = "\x1b8";
const SCROLL_ALL: &str = "\x1b[r";
const CLEAR_LINE: &str = "\x1b[2K";
/// Down by one row, scrolling at the last one, in the same column (IND).
const DOWN: &str = "\x1bD";
const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

/// The kept lines. Dropping it gives them back.
#[derive(Debug)]
pub(crate) struct StatusArea {
    size: WindowSize,
    shown: Vec<String>,
}

impl StatusArea {
    /// Takes the last rows of a terminal of this size, on standard error; none of one that is too small.
    pub(crate) fn take(size: WindowSize) -> Option<Self> {
        if size.rows < MIN_TERMINAL_ROWS {
            return None;
        }
        let mut text = DOWN.repeat(ROWS.into());
        // Back to where the cursor was, which may have scrolled up.
        _ = write!(text, "\x1b[{ROWS}A");
        text.push_str(&scroll_above(size));
        put(&text);
        Some(Self {
            size,
            shown: Vec::new(),
        })
    }

    /// Shows these lines; those that don't fit are counted.
    pub(crate) fn show(&mut self, size: WindowSize, lines: &[String]) {
        let lines = fitted(lines, size.columns.into());
        let is_resized = size != self.size;
        if !is_resized && lines == self.shown {
            return;
        }
        let mut text = String::new();
        if is_resized {
            self.size = size;
            text.push_str(&scroll_above(size));
        }
        text.push_str(SAVE_CURSOR);
        for row in 0..ROWS {
            let at = size.rows.saturating_sub(ROWS) + row + 1;
            let line = lines.get(usize::from(row)).map_or("", String::as_str);
            _ = write!(text, "\x1b[{at};1H{CLEAR_LINE}{DIM}{line}{RESET}");
        }
        text.push_str(RESTORE_CURSOR);
        put(&text);
        self.shown = lines;
    }
}

impl Drop for StatusArea {
    fn drop(&mut self) {
        let mut text = SAVE_CURSOR.to_owned();
        text.push_str(SCROLL_ALL);
        let first = self.size.rows.saturating_sub(ROWS) + 1;
        // From there to the end of the screen.
        _ = write!(text, "\x1b[{first};1H\x1b[J{RESTORE_CURSOR}");
        put(&text);
    }
}

/// Setting the region moves the cursor, so it is saved.
fn scroll_above(size: WindowSize) -> String {
    let last = size.rows.saturating_sub(ROWS);
    format!("{SAVE_CURSOR}\x1b[1;{last}r{RESTORE_CURSOR}")
}

fn put(text: &str) {
    // A terminal that is gone needs none of it.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// At most [`ROWS`] lines, each no wider than the terminal.
fn fitted(lines: &[String], columns: usize) -> Vec<String> {
    let rows = usize::from(ROWS);
    let mut fitted: Vec<String> = lines
        .iter()
        .take(rows)
        .map(|line| line.chars().take(columns).collect())
        .collect();
    if lines.len() > rows {
        let more = lines.len() - rows + 1;
        fitted[rows - 1] = format!("and {more} more");
    }
    fitted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_into_the_area() {
        let lines = |count: usize| -> Vec<String> {
            (1..=count).map(|number| format!("test {number}")).collect()
        };
        assert_eq!(fitted(&lines(4), 80), lines(4));
        let many = fitted(&lines(6), 80);
        assert_eq!(many[2..], ["test 3", "and 3 more"]);
        assert_eq!(fitted(&lines(1), 3), ["tes"]);
    }
}
