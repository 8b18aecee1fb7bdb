//! `cargo ktstr queue`.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use ktstr_host::{CpuQueue, Entry};
use ktstr_report::ExitCode as Code;
use serde_json::json;

use crate::edge::{OrExit as _, Refusal};
use crate::{format, output};

/// Prints which machines run, and who waits for host CPUs or memory.
pub(crate) fn run(as_json: bool) -> Result<ExitCode, Refusal> {
    let settings = ktstr::settings_from_environment().or_exit(Code::Usage)?;
    let queue = CpuQueue::look(settings.lock_folder.as_deref()).or_exit(Code::HostUnfit)?;
    if as_json {
        let entries: Vec<_> = queue.iter().map(described).collect();
        output::print(&format!("{:#}\n", json!({ "queue": entries })))?;
    } else if queue.is_empty() {
        output::say("no machine runs, and no test waits");
    } else {
        output::print(&table(&queue, SystemTime::now()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(queue: &[Entry], now: SystemTime) -> String {
    let now_ms = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_s = now_ms.as_secs();
    let rows: Vec<_> = queue
        .iter()
        .map(|Entry { place, claim }| {
            vec![
                claim.pid.to_string(),
                place.name().to_owned(),
                claim.host_cpus.to_string(),
                claim.all_memory_mib().to_string(),
                format::elapsed(now_s.saturating_sub(claim.since_unix_ms / 1_000)),
                claim.engine.clone(),
                claim.test.clone(),
            ]
        })
        .collect();
    format::table(
        &["PID", "STATE", "CPUS", "MIB", "FOR", "ENGINE", "TEST"],
        &rows,
    )
}

fn described(Entry { place, claim }: &Entry) -> serde_json::Value {
    json!({
        "pid": claim.pid,
        "state": place.name(),
        "host_cpus": claim.host_cpus,
        "memory_mib": claim.memory_mib,
        "huge_pages": claim.huge_pages,
        "since_unix_ms": claim.since_unix_ms,
        "engine": claim.engine,
        "test": claim.test,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ktstr_host::{Claim, Place};

    use super::*;

    #[test]
    fn holders_and_waiters_are_a_table() {
        let entry = |place, since_s: u64, claim: Claim| Entry {
            place,
            claim: Claim {
                since_unix_ms: since_s * 1_000,
                ..claim
            },
        };
        let mut queue = [
            entry(
                Place::Running,
                1_000,
                Claim::new("eevdf::steady", "kvm", 16).with_memory(2_048, true),
            ),
            entry(
                Place::Running,
                4_000,
                Claim::new("eevdf::prey", "tcg", 1).with_memory(512, false),
            ),
            entry(Place::Waiting, 4_612, Claim::new("a shell", "kvm", 4)),
        ];
        for (pid, entry) in (4_711..).zip(&mut queue) {
            entry.claim.pid = pid;
        }
        let now = UNIX_EPOCH + Duration::from_secs(4_654);
        insta::assert_snapshot!(table(&queue, now), @r"
        PID   STATE    CPUS  MIB   FOR     ENGINE  TEST
        4711  running  16    2048  1 h     kvm     eevdf::steady
        4712  running  1     512   10 min  tcg     eevdf::prey
        4713  waiting  4     0     42 s    kvm     a shell
        ");
    }
}
