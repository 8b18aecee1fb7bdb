//! `cargo ktstr runs`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use ktstr_report::{ExitCode as Code, RunId, RunStore, RunSummary, StoreError};
use serde_json::json;

use crate::args::RunsCommand;
use crate::edge::{OrExit as _, Refusal};
use crate::metadata::Metadata;
use crate::{environment, format, output};

/// From which size on a run says what the store takes, in bytes.
const LARGE_BYTES: u64 = 5 << 30;

/// Runs that the advice is to keep.
const ADVISED_KEEP: usize = 20;

/// Runs one of the commands on runs.
pub(crate) fn run(command: &RunsCommand) -> Result<ExitCode, Refusal> {
    let store = store()?;
    match command {
        RunsCommand::List { json } => list(&store, *json)?,
        RunsCommand::Clean { keep } => clean(&store, *keep)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The store of this workspace; where the user names its folder, no workspace is needed.
fn store() -> Result<RunStore, Refusal> {
    if environment::names_store() {
        return in_target(None);
    }
    let metadata = Metadata::ask(&environment::cargo(), None).or_exit(Code::Usage)?;
    in_target(Some(&metadata.target_directory))
}

/// The store of the workspace that is built in `target`, or without one that of the working folder.
pub(crate) fn in_target(target: Option<&Path>) -> Result<RunStore, Refusal> {
    let store = environment::store(target.unwrap_or(Path::new("target")));
    let root = std::path::absolute(store.root()).or_exit(Code::HostUnfit)?;
    Ok(RunStore::new(root))
}

/// What to say of a store that has grown large.
pub(crate) fn advice(store: &RunStore) -> Option<String> {
    let bytes = store.bytes();
    (bytes > LARGE_BYTES).then(|| advice_for(bytes, store.root()))
}

fn advice_for(bytes: u64, root: &Path) -> String {
    format!(
        "the runs in {} take {}: `cargo ktstr runs clean --keep {ADVISED_KEEP}` removes all but the {ADVISED_KEEP} newest",
        root.display(),
        format::size(bytes)
    )
}

/// A run as it is listed.
#[derive(Debug)]
struct Listed {
    id: RunId,
    dir: PathBuf,
    started: SystemTime,
    bytes: u64,
    summary: RunSummary,
}

/// All runs, oldest first.
fn listed(store: &RunStore) -> Result<Vec<Listed>, StoreError> {
    let mut runs = Vec::new();
    for id in by_age(store)? {
        // One may have been removed since.
        let Ok(run) = store.load_run(&id) else {
            continue;
        };
        runs.push(Listed {
            started: store.started(&id),
            bytes: store.run_bytes(&id),
            summary: RunSummary::of_run(&run),
            dir: run.dir,
            id,
        });
    }
    Ok(runs)
}

/// Ids of all runs, oldest first: a run may have been given an id of the user's own.
fn by_age(store: &RunStore) -> Result<Vec<RunId>, StoreError> {
    let mut runs = store.list_runs()?;
    runs.sort_by_cached_key(|id| (store.started(id), id.clone()));
    Ok(runs)
}

fn list(store: &RunStore, as_json: bool) -> Result<(), Refusal> {
    let runs = listed(store).or_exit(Code::HostUnfit)?;
    if as_json {
        let runs: Vec<_> = runs.iter().map(described).collect();
        let text = format!("{:#}\n", json!({ "store": store.root(), "runs": runs }));
        return output::print(&text);
    }
    let root = store.root().display();
    if runs.is_empty() {
        output::say(&format!("no run in {root}"));
        return Ok(());
    }
    output::print(&table(&runs))?;
    let bytes = format::size(runs.iter().map(|run| run.bytes).sum());
    output::say(&format!("{}, {bytes}, in {root}", count(runs.len())));
    Ok(())
}

fn table(runs: &[Listed]) -> String {
    let rows: Vec<_> = runs.iter().map(row).collect();
    let header = ["STARTED (UTC)", "SIZE", "PASS", "FAIL", "INC", "SKIP"];
    let mut text = format::table(&header, &rows);
    for run in runs {
        for damaged in &run.summary.unreadable {
            text.push_str(&format!("unreadable: {damaged}\n"));
        }
    }
    text
}

fn row(run: &Listed) -> Vec<String> {
    let totals = run.summary.totals();
    let counts = [
        totals.passed,
        totals.failed,
        totals.inconclusive,
        totals.skipped,
    ];
    let cells = [started(&run.id), format::size(run.bytes)];
    let counts = counts.iter().map(ToString::to_string);
    cells.into_iter().chain(counts).collect()
}

/// `2026-01-02 03:04:05.678` of an id that begins so, else the id.
fn started(id: &RunId) -> String {
    let text = id.as_str();
    match id.started() {
        Some(_) => format!(
            "{}-{}-{} {}:{}:{}",
            &text[..4],
            &text[4..6],
            &text[6..8],
            &text[9..11],
            &text[11..13],
            &text[13..19]
        ),
        None => text.to_owned(),
    }
}

fn described(run: &Listed) -> serde_json::Value {
    let totals = run.summary.totals();
    let started = run.started.duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({
        "id": run.id.as_str(),
        "dir": run.dir,
        "started_unix_s": started.as_secs(),
        "size_bytes": run.bytes,
        "passed": totals.passed,
        "failed": totals.failed,
        "inconclusive": totals.inconclusive,
        "skipped": totals.skipped,
        "unreadable": run.summary.unreadable.len(),
    })
}

fn clean(store: &RunStore, keep: usize) -> Result<(), Refusal> {
    store.sweep().or_exit(Code::HostUnfit)?;
    let mut runs = by_age(store).or_exit(Code::HostUnfit)?;
    runs.truncate(runs.len().saturating_sub(keep));
    let mut freed_bytes = 0;
    for id in &runs {
        let bytes = store.run_bytes(id);
        if store.remove_run(id).or_exit(Code::HostUnfit)? {
            freed_bytes += bytes;
            output::say(&format!("removed {id} ({})", format::size(bytes)));
        } else {
            output::say(&format!("kept {id}, which goes on"));
        }
    }
    let left = store.list_runs().or_exit(Code::HostUnfit)?.len();
    output::say(&format!(
        "{} freed, {} left in {}",
        format::size(freed_bytes),
        count(left),
        store.root().display()
    ));
    Ok(())
}

fn count(runs: usize) -> String {
    match runs {
        1 => "1 run".to_owned(),
        runs => format!("{runs} runs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_store_is_spoken_of_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(advice(&RunStore::new(folder.path())), None);
        insta::assert_snapshot!(
            advice_for(6_400_000_000, Path::new("/w/target/ktstr/runs")),
            @"the runs in /w/target/ktstr/runs take 6.4 GB: `cargo ktstr runs clean --keep 20` removes all but the 20 newest"
        );
    }

    #[test]
    fn runs_are_dated_by_their_ids_where_those_have_a_date() {
        let text = |id: &str| started(&id.parse().unwrap());
        assert_eq!(
            text("20260102T030405.678Z-1f3a-9c0b"),
            "2026-01-02 03:04:05.678"
        );
        assert_eq!(text("ci-4711"), "ci-4711");
    }
}
