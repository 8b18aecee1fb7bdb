//! What libFuzzer said (llvm.org/docs/LibFuzzer.html, "Output").

use std::path::PathBuf;

/// The numbers that matter, as far as they were said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Log {
    /// Inputs that were run.
    pub(super) executions: Option<u64>,
    /// Edges of the program that were reached.
    pub(super) coverage: Option<u64>,
    /// Most memory that the process had, in MiB.
    pub(super) peak_rss_mib: Option<u64>,
    /// The input that was written because of a fault.
    pub(super) finding: Option<PathBuf>,
}

impl Log {
    pub(super) fn read(text: &str) -> Self {
        let mut log = Self::default();
        for line in text.lines() {
            let stat = |name: &str| line.strip_prefix(name)?.trim().parse().ok();
            if let Some(count) = stat("stat::number_of_executed_units:") {
                log.executions = Some(count);
            } else if let Some(mib) = stat("stat::peak_rss_mb:") {
                log.peak_rss_mib = Some(mib);
            } else if line.starts_with('#') {
                log.coverage = after(line, "cov:").or(log.coverage);
                log.executions = after(line, "#").or(log.executions);
            } else if let Some((_, path)) = line.split_once("Test unit written to ") {
                log.finding = Some(path.into());
            }
        }
        log
    }
}

/// The number behind `word`.
fn after(line: &str, word: &str) -> Option<u64> {
    let (_, rest) = line.split_once(word)?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_finding_are_read() {
        let text = "\
INFO: Seed: 1
#4\tINITED cov: 80 ft: 81 corp: 3/12b exec/s: 0 rss: 50Mb
#4096\tpulse  cov: 1234 ft: 81 corp: 3/12b lim: 43 exec/s: 2048 rss: 90Mb
==1== ERROR: libFuzzer: deadly signal
artifact_prefix='/x/'; Test unit written to /x/crash-0a
stat::number_of_executed_units: 5000
stat::average_exec_per_sec:     2500
stat::peak_rss_mb:              91
";
        let log = Log {
            executions: Some(5000),
            coverage: Some(1234),
            peak_rss_mib: Some(91),
            finding: Some("/x/crash-0a".into()),
        };
        assert_eq!(Log::read(text), log);
        let cut = text.split_once("==1==").unwrap().0;
        assert_eq!(Log::read(cut).executions, Some(4096));
        assert_eq!(Log::read("Killed\n"), Log::default());
    }
}
