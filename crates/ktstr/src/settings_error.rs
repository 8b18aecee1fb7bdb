//! A variable of the environment that can't be used.

/// A variable has a value that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the environment variable {name} is `{value}`: {reason}")]
pub struct SettingsError {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) reason: String,
}
