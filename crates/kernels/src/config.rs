//! A kernel's build options.

use std::collections::HashMap;

/// The options a kernel was built with, as its `.config` lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelConfig {
    options: HashMap<String, String>,
}

/// How a driver-like option is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionState {
    /// `=y`: in the image.
    BuiltIn,
    /// `=m`: in a module file.
    Module,
    /// Not set, or not known to this kernel.
    Absent,
}

impl KernelConfig {
    /// Reads the text of a `.config`. Lines that aren't `CONFIG_X=value` are comments to it, as they are
    /// to kconfig.
    pub fn parse(text: &str) -> Self {
        let options = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("CONFIG_")?.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self { options }
    }

    /// The value as written (`y`, `m`, `250`, `"text"` with its quotes); `name` with or without `CONFIG_`.
    pub fn get(&self, name: &str) -> Option<&str> {
        let name = name.strip_prefix("CONFIG_").unwrap_or(name);
        self.options.get(name).map(String::as_str)
    }

    /// How a yes/module/no option is set. An option with any other value counts as built in.
    pub fn state(&self, name: &str) -> OptionState {
        match self.get(name) {
            None | Some("n") => OptionState::Absent,
            Some("m") => OptionState::Module,
            Some(_) => OptionState::BuiltIn,
        }
    }

    /// Whether any option was found at all.
    pub fn is_empty(&self) -> bool {
        self.options.is_empty()
    }
}
