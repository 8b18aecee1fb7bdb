//! What nextest recorded of a run: every test that it ran, ours or not. It is a JUnit file, since that is the one
//! record whose format nextest keeps stable.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ktstr_report::{OtherTest, Others, RunSummary};
use quick_junit::{Report, TestCaseStatus};

/// A folder for what a run leaves beside its results: nextest's record, and results that find no room where they
/// belong. It is removed when it is dropped, unless it is kept.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: tempfile::TempDir,
    started: SystemTime,
}

/// A test that nextest ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    /// Its binary, as nextest names it: `first-tests::eevdf`.
    binary: String,
    /// Its name within that.
    name: String,
    /// Why it failed, if it did.
    failure: Option<String>,
}

impl Scratch {
    /// Makes the folder, in memory where the host has a place for that: a full disk is one of the things it is for.
    pub(crate) fn make() -> io::Result<Self> {
        let mut folder = tempfile::Builder::new();
        let folder = folder.prefix("ktstr-run-");
        Ok(Self {
            folder: folder
                .tempdir_in("/dev/shm")
                .or_else(|_| folder.tempdir())?,
            started: SystemTime::now(),
        })
    }

    /// Where results go that find no room.
    pub(crate) fn unstored(&self) -> PathBuf {
        self.folder.path().join("unstored")
    }

    /// The option by which nextest writes its record here. It writes the configuration for that, which is weaker
    /// than the user's own.
    pub(crate) fn nextest_option(&self) -> io::Result<String> {
        let config = self.folder.path().join("nextest.toml");
        let record = self.record().display().to_string();
        let record = serde_json::to_string(&record)?;
        fs::write(
            &config,
            format!("[profile.default.junit]\npath = {record}\n"),
        )?;
        Ok(format!("--tool-config-file=ktstr:{}", config.display()))
    }

    /// Where tests tell how far they are.
    pub(crate) fn progress_socket(&self) -> PathBuf {
        self.folder.path().join("progress")
    }

    fn record(&self) -> PathBuf {
        self.folder.path().join("junit.xml")
    }

    /// Reads the record, here or where the user's configuration of nextest has it.
    pub(crate) fn read(&self, target: Option<&Path>) -> Option<Vec<Ran>> {
        let elsewhere = || newest_record(&target?.join("nextest"), self.started);
        let text = fs::read_to_string(self.record()).ok().or_else(elsewhere)?;
        read(&text)
    }

    /// Leaves the folder where it is, without what only this command needs.
    pub(crate) fn keep(mut self) {
        self.folder.disable_cleanup(true);
        for name in ["nextest.toml", "junit.xml", "progress"] {
            // What stays does no harm.
            let _ = fs::remove_file(self.folder.path().join(name));
        }
    }
}

/// The newest XML file in the folders of nextest's profiles that was written since `started`.
fn newest_record(store: &Path, started: SystemTime) -> Option<String> {
    let profiles = fs::read_dir(store).ok()?.flatten();
    let files = profiles.filter_map(|profile| fs::read_dir(profile.path()).ok());
    let records = files.flat_map(Iterator::flatten).filter_map(|file| {
        let path = file.path();
        let modified = file.metadata().ok()?.modified().ok()?;
        let is_record = path.extension()? == "xml" && modified >= started;
        is_record.then_some((modified, path))
    });
    let (_, newest) = records.max()?;
    fs::read_to_string(newest).ok()
}

fn read(text: &str) -> Option<Vec<Ran>> {
    let report = Report::deserialize_from_str(text).ok()?;
    let mut tests = Vec::new();
    for suite in report.test_suites {
        // Of a stress run there is a suite for each time: `binary@stress-0`.
        let binary = suite.name.as_str();
        let binary = binary.split_once('@').map_or(binary, |(binary, _)| binary);
        for case in suite.test_cases {
            let failure = match case.status {
                TestCaseStatus::Skipped { .. } => continue,
                TestCaseStatus::Success { .. } => None,
                TestCaseStatus::NonSuccess { message, ty, .. } => {
                    let words = [ty, message].into_iter().flatten();
                    let words: Vec<String> = words
                        .map(|word| word.as_str().lines().next().unwrap_or_default().to_owned())
                        .collect();
                    Some(words.join(": "))
                }
            };
            tests.push(Ran {
                binary: binary.to_owned(),
                name: case.name.as_str().to_owned(),
                failure,
            });
        }
    }
    Some(tests)
}

impl Ran {
    /// The name that its result has, if it leaves one: the path of its function. The crate of a test binary is
    /// named as its target is.
    fn result_name(&self) -> String {
        let target = self.binary.rsplit([':', '/']).next().unwrap_or_default();
        format!("{}::{}", target.replace('-', "_"), self.name)
    }
}

/// The tests that nextest ran and that left no result. One that nextest saw fail, though its result is green, is
/// among them: it was ended after it had written it.
pub(crate) fn others(ran: &[Ran], summary: &RunSummary) -> Others {
    let green: BTreeMap<&str, bool> = summary
        .tests
        .iter()
        .map(|test| (test.test.as_str(), test.outcome.is_green()))
        .collect();
    let mut others = Others::default();
    for test in ran {
        let told = green.get(test.result_name().as_str());
        match (&test.failure, told) {
            (None, Some(_)) | (Some(_), Some(false)) => {}
            (None, None) => others.passed += 1,
            (Some(reason), told) => {
                let what = match told {
                    Some(_) => "it failed after it had left a green result",
                    None => "it failed and left no result",
                };
                others.failed.push(OtherTest {
                    test: format!("{} {}", test.binary, test.name),
                    reason: format!("{what} ({reason})"),
                });
            }
        }
    }
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="4" failures="2" errors="0">
    <testsuite name="first-tests::eevdf" tests="2" disabled="0" errors="0" failures="1">
        <testcase name="deep::steady" classname="first-tests::eevdf"></testcase>
        <testcase name="prey" classname="first-tests::eevdf">
            <failure message="thread 'prey' panicked at x.rs&#10;more" type="test failure with exit code 101">text</failure>
        </testcase>
    </testsuite>
    <testsuite name="first-tests" tests="2" disabled="0" errors="0" failures="1">
        <testcase name="sums" classname="first-tests"></testcase>
        <testcase name="crashes" classname="first-tests">
            <failure type="test abort with signal 9"></failure>
        </testcase>
    </testsuite>
    <testsuite name="first-tests::bin/my-tool@stress-1" tests="1" disabled="0" errors="0" failures="0">
        <testcase name="runs" classname="x"></testcase>
    </testsuite>
</testsuites>
"#;

    #[test]
    fn results_are_found_by_the_name_of_the_function() {
        let names: Vec<String> = read(RECORD).unwrap().iter().map(Ran::result_name).collect();
        assert_eq!(
            names,
            [
                "eevdf::deep::steady",
                "eevdf::prey",
                "first_tests::sums",
                "first_tests::crashes",
                "my_tool::runs"
            ]
        );
    }

    #[test]
    fn fault_f6_what_ran_without_a_result_is_told_with_the_runners_word() {
        let ran = read(RECORD).unwrap();
        let others = others(&ran, &RunSummary::default());
        assert_eq!(others.passed, 3);
        let failed: Vec<String> = others
            .failed
            .iter()
            .map(|other| format!("{}: {}", other.test, other.reason))
            .collect();
        assert_eq!(
            failed,
            [
                "first-tests::eevdf prey: it failed and left no result (test failure with exit code 101: \
                 thread 'prey' panicked at x.rs)",
                "first-tests crashes: it failed and left no result (test abort with signal 9)"
            ]
        );
    }

    #[test]
    fn what_is_no_record_is_none() {
        assert_eq!(read("<html>"), None);
        assert_eq!(read(""), None);
    }
}
