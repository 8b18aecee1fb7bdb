//! Text that came out of a guest, made harmless and laid out.

use super::quantity::count;

/// Indentation of blocks of foreign text, so that no line of theirs can pass for one of ours.
const INDENT: &str = "    ";

/// Keeps `\n` and `\t`, drops terminal escape sequences and carriage returns, and spells out every other
/// control character and what would reorder the line.
pub(super) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix('\u{1b}') {
            rest = skip_escape(after);
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match c {
            '\n' | '\t' => out.push(c),
            '\r' => {}
            _ if c.is_control() || reorders(c) => out.extend(c.escape_unicode()),
            _ => out.push(c),
        }
    }
    out
}

/// [`clean`], in one line.
pub(super) fn clean_line(text: &str) -> String {
    let text = clean(text.trim());
    text.replace(['\n', '\t'], " ")
}

/// `text`, cleaned and indented. Of one that has more than `max` lines the first third of them and the last ones,
/// with a line between that says how many are left out: what a text begins with is often the cause, and what it
/// ends with what came of it. Empty for a text without a visible character.
pub(super) fn block(text: &str, max: usize) -> String {
    let text = clean(text);
    let lines: Vec<&str> = text.trim_matches('\n').lines().collect();
    if lines.iter().all(|line| line.trim().is_empty()) {
        return String::new();
    }
    let left_out = lines.len().saturating_sub(max);
    let head = if left_out > 0 { max / 3 } else { lines.len() };
    let mut out = indented(&lines[..head]);
    if left_out > 0 {
        out.push_str(&format!(
            "{INDENT}… {} left out here, kept in the sidecar\n",
            count(left_out, "line"),
        ));
        out.push_str(&indented(&lines[head + left_out..]));
    }
    out
}

fn indented(lines: &[&str]) -> String {
    let line = |line: &&str| format!("{}\n", format!("{INDENT}{line}").trim_end());
    lines.iter().map(line).collect()
}

/// The first `most` lines of `text`, cleaned and indented, before a line that says how many more there are.
pub(super) fn first_lines(text: &str, most: usize) -> String {
    let text = clean(text);
    let lines: Vec<&str> = text.trim_matches('\n').lines().collect();
    let first = lines[..lines.len().min(most)].join("\n");
    let mut out = block(&first, most);
    if lines.len() > most {
        out.push_str(&format!(
            "{INDENT}… {} left out here, kept in the sidecar\n",
            count(lines.len() - most, "later line"),
        ));
    }
    out
}

/// What follows an escape sequence whose ESC has been taken. Sequences as in ECMA-48: CSI ends with a byte
/// of 0x40 to 0x7e; a string (OSC, DCS and the like) ends with BEL or ESC `\`, and here also at a line's end.
fn skip_escape(after: &str) -> &str {
    match after.chars().next() {
        Some('[') => {
            let body = &after[1..];
            let end = body.find(|c: char| !matches!(c, '\u{20}'..='\u{3f}'));
            match end.map(|end| (end, &body[end..])) {
                Some((_, tail)) if tail.starts_with(|c: char| matches!(c, '\u{40}'..='\u{7e}')) => {
                    &tail[1..]
                }
                Some((_, tail)) => tail,
                None => "",
            }
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            let body = &after[1..];
            match body.find(['\u{7}', '\u{1b}', '\n']) {
                Some(end) if body[end..].starts_with('\u{7}') => &body[end + 1..],
                Some(end) if body[end..].starts_with("\u{1b}\\") => &body[end + 2..],
                Some(end) => &body[end..],
                None => "",
            }
        }
        _ => after,
    }
}

/// Unicode's explicit directional controls: they can make a line read as another.
fn reorders(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Mostly what a terminal minds, with a few plain characters between.
    const HOSTILE: &str = "[\\x00-\\x7f\u{80}-\u{9f}\u{202e}\u{2066}é\\x1b\\[\\]]{0,80}";

    #[test]
    fn terminal_control_is_gone_and_the_text_stays() {
        assert_eq!(clean("a\u{1b}[1;31mred\u{1b}[0m\r\nb\tc"), "ared\nb\tc");
        assert_eq!(clean("\u{1b}]0;title\u{7}x\u{1b}]8;;u\u{1b}\\y"), "xy");
        assert_eq!(clean("\u{1b}]never ends\nnext"), "\nnext");
        assert_eq!(clean("\u{1b}[2J\u{1b}c\u{0}\u{9b}"), "c\\u{0}\\u{9b}");
        assert_eq!(clean("\u{1b}["), "");
        assert_eq!(clean("\u{202e}"), "\\u{202e}");
    }

    #[test]
    fn a_long_block_says_what_it_leaves_out() {
        assert_eq!(
            block("\n1\n2\n3\n4\n5\n", 3),
            "    1\n    … 2 lines left out here, kept in the sidecar\n    4\n    5\n"
        );
        assert_eq!(block("1\n2\n", 2), "    1\n    2\n");
        assert_eq!(block(" \n\n", 2), "");
        assert_eq!(
            first_lines("1\n2\n3\n", 2),
            "    1\n    2\n    … 1 later line left out here, kept in the sidecar\n"
        );
        assert_eq!(first_lines("", 2), "");
    }

    proptest! {
        #[test]
        fn nothing_but_newline_and_tab_survives_of_control(text in HOSTILE) {
            let out = clean(&text);
            prop_assert!(out.chars().all(|c| matches!(c, '\n' | '\t') || !(c.is_control() || reorders(c))));
            prop_assert!(!clean_line(&text).contains(['\n', '\t']));
            prop_assert!(block(&text, 5).lines().all(|line| line.is_empty() || line.starts_with(INDENT)));
        }
    }
}
