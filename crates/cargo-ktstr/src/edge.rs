//! The one place where an error becomes text and an exit code.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use ktstr_report::ExitCode;

const ERROR: Style = AnsiColor::Red.on_default().bold();

/// Why the command ends early, and what it exits with.
#[derive(Debug)]
pub(crate) struct Refusal {
    code: ExitCode,
    error: anyhow::Error,
}

impl Refusal {
    /// A refusal with an error of its own.
    pub(crate) fn new(code: ExitCode, error: impl Into<anyhow::Error>) -> Self {
        Self {
            code,
            error: error.into(),
        }
    }

    /// A refusal that is one message.
    pub(crate) fn message(code: ExitCode, message: impl Into<String>) -> Self {
        Self::new(code, anyhow::Error::msg(message.into()))
    }

    /// Prints the chain of causes.
    pub(crate) fn report(&self) -> std::process::ExitCode {
        let causes: Vec<String> = self.error.chain().map(ToString::to_string).collect();
        anstream::eprint!("{}", rendered(&causes));
        self.code.into()
    }
}

/// Says what an error makes the command exit with.
pub(crate) trait OrExit<T> {
    /// The value, or a refusal with `code`.
    fn or_exit(self, code: ExitCode) -> Result<T, Refusal>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, code: ExitCode) -> Result<T, Refusal> {
        self.map_err(|error| Refusal::new(code, error))
    }
}

/// Help and version go to standard output and are no error; the rest is a wrong command line.
pub(crate) fn refuse_arguments(error: &clap::Error) -> std::process::ExitCode {
    // Nothing is left to be done about a terminal that is gone.
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::Usage.into()
    } else {
        ExitCode::Ok.into()
    }
}

/// The outermost error, then its causes by number. A cause that the line before already contains is left out.
fn rendered(causes: &[String]) -> String {
    let mut text = String::new();
    let mut told = "";
    let mut number = 0;
    for cause in causes {
        let cause = cause.trim_end();
        if told.is_empty() {
            _ = writeln!(text, "{ERROR}error:{ERROR:#} {cause}");
        } else if !told.contains(cause) {
            number += 1;
            _ = writeln!(text, "  {number}: {cause}");
        }
        told = cause;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::rendered;

    #[test]
    fn fault_f13_causes_are_numbered_and_told_once() {
        let chain = [
            "can't read x: no such file; make it",
            "no such file",
            "the disk is gone",
        ]
        .map(str::to_owned);
        let plain = anstream::adapter::strip_str(&rendered(&chain)).to_string();
        assert_eq!(
            plain,
            "error: can't read x: no such file; make it\n  1: the disk is gone\n"
        );
    }
}
