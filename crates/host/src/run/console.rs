//! What a report keeps of a console.

use ktstr_report::KERNEL_PANIC;

/// Lines of the console that a report keeps.
const CONSOLE_LINES: usize = 60;

/// And at most, after a panic.
const MAX_CONSOLE_LINES: usize = 400;

/// Lines before a panic that a report keeps: what led to it.
const LINES_BEFORE_PANIC: usize = 20;

/// The lines of a console that matter: the last ones, and after a panic all since shortly before it.
pub(crate) fn console_end(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    let panic = lines.iter().position(|line| line.contains(KERNEL_PANIC));
    let since_panic = panic.map_or(0, |at| lines.len() - at + LINES_BEFORE_PANIC);
    last_lines(console, since_panic.clamp(CONSOLE_LINES, MAX_CONSOLE_LINES))
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
