//! Figures and tables for people.

use std::time::{Duration, SystemTime};

use comfy_table::{Table, presets};

use crate::output;

/// `812 kB`, `41.3 MB`, `1.2 GB`.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1_000)),
        1_000_000..1_000_000_000 => {
            format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
        }
        _ => format!(
            "{}.{} GB",
            bytes / 1_000_000_000,
            bytes % 1_000_000_000 / 100_000_000
        ),
    }
}

/// How long ago that was: `just now`, `5 min`, `3 h`, `12 days`.
pub(crate) fn age(now: SystemTime, unix_s: u64) -> String {
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(unix_s);
    match now.duration_since(then).map_or(0, |age| age.as_secs()) {
        0..60 => "just now".to_owned(),
        seconds => elapsed(seconds),
    }
}

/// How long something has lasted: `42 s`, `5 min`, `3 h`, `12 days`.
pub(crate) fn elapsed(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..86_400 => format!("{} h", seconds / 3_600),
        seconds if seconds < 2 * 86_400 => "1 day".to_owned(),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// A table without lines, its columns two spaces apart, ending with a newline. Where the terminal is too narrow for it,
/// a list: a line for the first cell of each row, and one for each of the others.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    within(output::columns(), header, rows)
}

fn within(columns: Option<usize>, header: &[&str], rows: &[Vec<String>]) -> String {
    let table = whole_table(header, rows);
    let fits = |columns| table.lines().all(|line| line.chars().count() <= columns);
    if columns.is_none_or(fits) {
        table
    } else {
        list(header, rows)
    }
}

/// `HEADER  cell`, indented below the row's first cell.
fn list(header: &[&str], rows: &[Vec<String>]) -> String {
    let names = header.iter().skip(1);
    let width = names.clone().map(|name| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for row in rows {
        let mut cells = row.iter();
        let first = cells.next().map_or("", String::as_str);
        text.push_str(&format!("{first}\n"));
        let mut names = names.clone();
        for cell in cells {
            let name = names.next().copied().unwrap_or_default();
            for line in cell.lines() {
                let line = format!("  {name:width$}  {line}");
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
    }
    text
}

fn whole_table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if !header.is_empty() {
        table.set_header(header);
    }
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_read_well_at_every_scale() {
        assert_eq!(size(999), "1 kB");
        assert_eq!(size(41_360_000), "41.3 MB");
        assert_eq!(size(1_250_000_000), "1.2 GB");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000_000);
        let ago = |seconds: u64| age(now, 10_000_000 - seconds);
        assert_eq!(ago(59), "just now");
        assert_eq!(ago(3_599), "59 min");
        assert_eq!(ago(3_600), "1 h");
        assert_eq!(ago(86_400), "1 day");
        assert_eq!(ago(172_800), "2 days");
        assert_eq!(age(now, 20_000_000), "just now");
    }

    #[test]
    fn fault_f13_a_table_that_is_too_wide_for_the_terminal_is_a_list() {
        let row =
            |key: &str, source: &str| vec![key.to_owned(), "7.3".to_owned(), source.to_owned()];
        let rows = [row("debian-7.3.4", "trixie-backports"), row("one", "a\nb")];
        let header = ["KEY", "RELEASE", "SOURCE"];
        let whole = "\
KEY           RELEASE  SOURCE
debian-7.3.4  7.3      trixie-backports
one           7.3      a
                       b
";
        assert_eq!(within(None, &header, &rows), whole);
        assert_eq!(within(Some(39), &header, &rows), whole);
        assert_eq!(
            within(Some(38), &header, &rows),
            "\
debian-7.3.4
  RELEASE  7.3
  SOURCE   trixie-backports
one
  RELEASE  7.3
  SOURCE   a
  SOURCE   b
"
        );
    }

    #[test]
    fn columns_line_up_and_no_line_ends_in_spaces() {
        let rows = [
            vec!["a".to_owned(), "b".to_owned()],
            vec!["long".to_owned(), "1\n2".to_owned()],
        ];
        assert_eq!(
            table(&["k", "v"], &rows),
            "k     v\na     b\nlong  1\n      2\n"
        );
    }
}
