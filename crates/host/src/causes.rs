//! Errors with their causes.

use std::error::Error;

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    causes(error).join(": ")
}

/// An error and its causes, outermost first.
pub(crate) fn causes(error: &dyn Error) -> Vec<String> {
    let mut chain = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // A message may already have taken in its cause.
        if !chain.last().is_some_and(|outer| outer.contains(&text)) {
            chain.push(text);
        }
        cause = error.source();
    }
    chain
}
