//! The command line of `cargo ktstr test`: which words are ours, and what the others mean, as far as it matters.
//!
//! Ours are few. All others are for `cargo nextest run`, in the order in which they stand.

use std::ffi::{OsStr, OsString};

/// Our options that take a value.
const OWN_WITH_VALUE: [&str; 2] = ["--kernel", "--engine"];

/// Our options that take none.
const OWN_FLAGS: [&str; 3] = ["--no-skips", "--help", "-h"];

/// Options that choose packages, so that none must be added: a workspace elsewhere and an archive do too.
const CHOOSERS: [&str; 9] = [
    "-p",
    "--package",
    "--workspace",
    "--all",
    "--manifest-path",
    "--exclude",
    "--archive-file",
    "--binaries-metadata",
    "--cargo-metadata",
];

/// Options that name an archive of tests that were built elsewhere.
const BUILT_ELSEWHERE: [&str; 3] = ["--archive-file", "--binaries-metadata", "--cargo-metadata"];

/// Puts our options of `cargo ktstr test` before a `--`, and all else behind it. The first `--` of the user's own
/// goes: what comes after it is for nextest as well.
pub(crate) fn sorted(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args = args.into_iter();
    let mut sorted: Vec<OsString> = args.by_ref().take(2).collect();
    if sorted.get(1).is_none_or(|command| command != "test") {
        sorted.extend(args);
        return sorted;
    }
    let mut rest = vec![OsString::from("--")];
    while let Some(arg) = args.next() {
        if arg == "--" {
            rest.extend(args.by_ref());
        } else if OWN_WITH_VALUE.iter().any(|own| arg == *own) {
            sorted.push(arg);
            sorted.extend(args.next());
        } else if is_own(&arg) {
            sorted.push(arg);
        } else {
            rest.push(arg);
        }
    }
    sorted.append(&mut rest);
    sorted
}

fn is_own(arg: &OsStr) -> bool {
    let with_value = |own: &str| {
        arg.to_str()
            .and_then(|arg| arg.strip_prefix(own))
            .is_some_and(|rest| rest.starts_with('='))
    };
    OWN_FLAGS.iter().any(|own| arg == *own) || OWN_WITH_VALUE.into_iter().any(with_value)
}

/// What is for nextest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NextestArgs<'a>(pub(crate) &'a [OsString]);

impl<'a> NextestArgs<'a> {
    /// Those before a `--`, which begins what test binaries would get.
    fn own(self) -> impl Iterator<Item = &'a str> {
        let own = self.0.iter().take_while(|arg| *arg != "--");
        own.filter_map(|arg| arg.to_str())
    }

    /// Whether one of `names` is there, with or without a value.
    fn has(self, names: &[&str]) -> bool {
        self.own()
            .any(|arg| names.iter().any(|name| value_in(name, arg).is_some()))
    }

    /// The values of all options called one of `names`: `-p a`, `-pa`, `--package a`, `--package=a`.
    fn values(self, names: &[&str]) -> Vec<&'a str> {
        let mut values = Vec::new();
        let mut args = self.own();
        while let Some(arg) = args.next() {
            match names.iter().find_map(|name| value_in(name, arg)) {
                Some("") => values.extend(args.next()),
                Some(value) => values.push(value),
                None => {}
            }
        }
        values
    }

    /// Whether they choose packages, so that nothing must be added to them.
    pub(crate) fn choose_packages(self) -> bool {
        self.has(&CHOOSERS)
    }

    /// The packages that are named.
    pub(crate) fn packages(self) -> Vec<&'a str> {
        self.values(&["-p", "--package"])
    }

    /// Whether all packages of the workspace are meant, but for those left out.
    pub(crate) fn is_workspace(self) -> bool {
        self.has(&["--workspace", "--all"])
    }

    /// The packages that are left out.
    pub(crate) fn excluded(self) -> Vec<&'a str> {
        self.values(&["--exclude"])
    }

    /// The features that are switched on: `a,b`, `"a b"`.
    pub(crate) fn features(self) -> Vec<&'a str> {
        let lists = self.values(&["-F", "--features"]);
        lists
            .into_iter()
            .flat_map(|list| list.split([',', ' ']))
            .filter(|feature| !feature.is_empty())
            .collect()
    }

    /// Whether all features are.
    pub(crate) fn has_all_features(self) -> bool {
        self.has(&["--all-features"])
    }

    /// Whether those are not that are by default.
    pub(crate) fn has_no_default_features(self) -> bool {
        self.has(&["--no-default-features"])
    }

    /// The manifest of a workspace elsewhere.
    pub(crate) fn manifest_path(self) -> Option<&'a str> {
        self.values(&["--manifest-path"]).pop()
    }

    /// Whether tests are only built.
    pub(crate) fn is_build_only(self) -> bool {
        self.has(&["--no-run"])
    }

    /// Whether the tests were built elsewhere, so that there need be no workspace here.
    pub(crate) fn are_built_elsewhere(self) -> bool {
        self.has(&BUILT_ELSEWHERE)
    }
}

/// What `arg` holds beside `name`: nothing if it is just that, its value if that is in the same word.
fn value_in<'a>(name: &str, arg: &'a str) -> Option<&'a str> {
    let rest = arg.strip_prefix(name)?;
    match rest.strip_prefix('=') {
        Some(value) => Some(value),
        // `-pa`
        None if rest.is_empty() || !name.starts_with("--") => Some(rest),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn fault_f5_what_is_not_ours_goes_to_nextest_in_its_order() {
        for (line, expected) in [
            ("x test", "x test --"),
            (
                "x test -E test(=a) --kernel debian one --release",
                "x test --kernel debian -- -E test(=a) one --release",
            ),
            (
                "x test --engine=tcg --features f --no-skips two -j 1",
                "x test --engine=tcg --no-skips -- --features f two -j 1",
            ),
            (
                "x test -p a one -- --no-capture -- --exact --kernel k",
                "x test -- -p a one --no-capture -- --exact --kernel k",
            ),
            ("x test --kernel", "x test --kernel --"),
            ("x shell --exec ls -- -x", "x shell --exec ls -- -x"),
            ("x", "x"),
        ] {
            assert_eq!(sorted(words(line)), words(expected), "{line}");
        }
    }

    #[test]
    fn values_are_read_in_every_form_that_cargo_takes() {
        let line = words("-p a --package=b -pc --package d -F x,y --features=z -- -p e");
        let args = NextestArgs(&line);
        assert_eq!(args.packages(), ["a", "b", "c", "d"]);
        assert_eq!(args.features(), ["x", "y", "z"]);
        assert!(!args.has_all_features() && !args.is_build_only());
        let line = words("--no-run --workspace --exclude=a --exclude b");
        let args = NextestArgs(&line);
        assert!(args.is_build_only() && args.is_workspace());
        assert_eq!(args.excluded(), ["a", "b"]);
    }

    #[test]
    fn a_choice_of_packages_is_seen() {
        let chosen = |line: &str| NextestArgs(&words(line)).choose_packages();
        for line in [
            "-p a",
            "-pa",
            "--package=a",
            "--package a",
            "--workspace",
            "--all",
            "--manifest-path=x",
            "--archive-file a.tar.zst",
        ] {
            assert!(chosen(line), "{line}");
        }
        for line in [
            "",
            "--profile ci",
            "--all-features",
            "--all-targets",
            "-- -p a",
            "--packages",
        ] {
            assert!(!chosen(line), "{line}");
        }
    }
}
