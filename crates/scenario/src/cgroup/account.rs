//! What cgroups use while load is held on them, beside what was declared of them.

use std::collections::BTreeMap;
use std::time::Instant;

use ktstr_report::{BandwidthSpan, CgroupAccount, CgroupLevel, Quota};
use ktstr_topology::CpuSet;

use super::entry::Entry;
use super::ledger::{Change, Declared, read_cpu_time};
use super::{CgroupError, CgroupManager, CpuMax, name};

/// A look at one cgroup when an account was begun.
#[derive(Clone, Debug)]
struct Start {
    at: Instant,
    entry: Entry,
    declared: Declared,
    cpu_time_ns: Result<u64, String>,
}

/// Keeps account of cgroups from [`CgroupManager::begin_account`] on.
#[derive(Debug)]
pub struct AccountWindow {
    cgroups: CgroupManager,
    starts: BTreeMap<String, Start>,
    first_change: usize,
}

impl CgroupManager {
    /// Begins to keep account of all cgroups that there are, and of those above them: what they use, and what
    /// is changed. To be called when the workers have begun.
    pub fn begin_account(&self) -> AccountWindow {
        let first_change = self.ledger().change_count();
        let starts = self
            .levels()
            .into_iter()
            .map(|(name, entry)| {
                let start = Start {
                    declared: self.ledger().declared(&name),
                    cpu_time_ns: read_cpu_time(&entry),
                    at: Instant::now(),
                    entry,
                };
                (name, start)
            })
            .collect();
        AccountWindow {
            cgroups: self.clone(),
            starts,
            first_change,
        }
    }

    /// The innermost `cpuset.mems` that was declared for `name` or one above it.
    pub(crate) fn declared_mems(&self, name: &str) -> Option<CpuSet> {
        let above: Vec<&str> = name::ancestors(name).collect();
        [name]
            .into_iter()
            .chain(above.into_iter().rev())
            .find_map(|name| self.ledger().declared(name).cpuset_mems)
    }
}

impl AccountWindow {
    /// The account of the cgroup `name` until now. To be taken before its limits are lifted and its workers
    /// told to stop.
    pub fn account(&self, name: &str) -> Result<CgroupAccount, CgroupError> {
        let root = self.cgroups.root_of(name)?;
        let above = name::ancestors(name).map(str::to_owned);
        let names = [root].into_iter().chain(above).chain([name.to_owned()]);
        Ok(CgroupAccount {
            levels: names.map(|name| self.level(name)).collect(),
        })
    }

    fn level(&self, name: String) -> CgroupLevel {
        let Some(start) = self.starts.get(&name) else {
            return CgroupLevel {
                trouble: Some(format!("cgroup `{name}` was made after the load had begun")),
                name,
                ..CgroupLevel::default()
            };
        };
        let ledger = self.cgroups.ledger();
        let changes = ledger.changes_after(self.first_change, &name);
        let overflowed = changes.is_none();
        let changes = changes.unwrap_or_default();
        let declared = ledger.declared(&name);
        let mut changed: Vec<String> = Vec::new();
        for change in &changes {
            if !changed.iter().any(|file| file == change.file) {
                changed.push(change.file.to_owned());
            }
        }
        let foreign = foreign_quota(&start.entry, declared.cpu_max)
            .or_else(|| foreign_weight(&start.entry, declared.cpu_weight));
        let (spans, trouble) = match (overflowed, foreign) {
            (true, _) => (
                Vec::new(),
                Some("its limits were changed too often".to_owned()),
            ),
            (_, Some(foreign)) => (Vec::new(), Some(format!("{foreign} of cgroup `{name}`"))),
            (false, None) => match spans(start, &changes) {
                Ok(spans) => (spans, None),
                Err(why) => (Vec::new(), Some(why)),
            },
        };
        CgroupLevel {
            name,
            cpu_weight: declared.cpu_weight,
            cpuset_mems: declared.cpuset_mems,
            spans,
            frozen: start.declared.frozen || changes.iter().any(|change| change.froze),
            changed,
            trouble,
        }
    }
}

fn spans(start: &Start, changes: &[Change]) -> Result<Vec<BandwidthSpan>, String> {
    let mut spans = Vec::new();
    let mut from = (start.at, start.cpu_time_ns.clone()?);
    let mut quota = start.declared.cpu_max.and_then(CpuMax::quota);
    let bandwidth = changes.iter().filter(|change| change.file == "cpu.max");
    let mut close = |at: Instant, cpu_time_ns: u64, quota| {
        let wall = at.saturating_duration_since(from.0);
        spans.push(BandwidthSpan {
            wall_ns: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX),
            cpu_time_ns: cpu_time_ns.saturating_sub(from.1),
            quota,
        });
        from = (at, cpu_time_ns);
    };
    for change in bandwidth {
        let unread = || "its cpu.stat could not be read when cpu.max was changed".to_owned();
        close(change.at, change.cpu_time_ns.ok_or_else(unread)?, quota);
        quota = change.quota;
    }
    let cpu_time_ns = read_cpu_time(&start.entry)?;
    close(Instant::now(), cpu_time_ns, quota);
    Ok(spans)
}

/// What `cpu.max` holds, as a clause, if it is not what was declared: someone else wrote it.
fn foreign_quota(entry: &Entry, declared: Option<CpuMax>) -> Option<String> {
    let text = entry.read("cpu.max").ok()?;
    let declared = declared.unwrap_or(CpuMax::Max).quota();
    let held = parse_cpu_max(&text);
    (held != Some(declared)).then(|| {
        let text = text.trim();
        format!("the harness did not write the `{text}` in cpu.max")
    })
}

fn foreign_weight(entry: &Entry, declared: Option<u32>) -> Option<String> {
    let text = entry.read("cpu.weight").ok()?;
    let text = text.trim();
    (text.parse() != Ok(declared.unwrap_or(100)))
        .then(|| format!("the harness did not write the `{text}` in cpu.weight"))
}

/// The limit that `cpu.max` holds; the outer `None` for what is no such text.
pub(super) fn parse_cpu_max(text: &str) -> Option<Option<Quota>> {
    let (quota, period) = text.trim().split_once(' ')?;
    let us = |number: &str| number.parse::<u64>().ok()?.checked_mul(1000);
    let period_ns = us(period).filter(|&period| period > 0)?;
    if quota == "max" {
        return Some(None);
    }
    let quota_ns = us(quota)?;
    Some(Some(Quota {
        quota_ns,
        period_ns,
    }))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    fn entry(name: &str) -> (Entry, std::path::PathBuf) {
        let dir = std::env::temp_dir().join(format!("ktstr-account-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("writable");
        let entry = Entry {
            dir: dir.clone(),
            write_timeout: Duration::from_secs(2),
        };
        (entry, dir)
    }

    #[test]
    fn cpu_max_is_read_as_the_kernel_writes_it() {
        let quota = |quota_ns, period_ns| {
            Some(Some(Quota {
                quota_ns,
                period_ns,
            }))
        };
        assert_eq!(parse_cpu_max("max 100000\n"), Some(None));
        assert_eq!(
            parse_cpu_max("20000 100000\n"),
            quota(20_000_000, 100_000_000)
        );
        for text in ["", "max", "20000 0", "x 100000", "1 99999999999999999999"] {
            assert_eq!(parse_cpu_max(text), None, "{text:?}");
        }
        assert_eq!(Some(CpuMax::Pct(20).quota()), parse_cpu_max("20000 100000"));
    }

    #[test]
    fn spans_end_where_the_quota_was_changed() {
        let (entry, dir) = entry("spans");
        let stat = |us: u64| fs::write(dir.join("cpu.stat"), format!("usage_usec {us}\n"));
        stat(900).expect("writable");
        let at = Instant::now();
        let start = Start {
            at,
            declared: Declared::default(),
            cpu_time_ns: Ok(100_000),
            entry,
        };
        let quota = CpuMax::Pct(5).quota();
        let change = |after_ms, us| Change {
            at: at + Duration::from_millis(after_ms),
            cgroup: "a".to_owned(),
            file: "cpu.max",
            quota,
            froze: false,
            cpu_time_ns: us,
        };
        let found = spans(&start, &[change(0, Some(400_000))]).expect("figures");
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].cpu_time_ns, found[0].quota), (300_000, None));
        assert_eq!((found[1].cpu_time_ns, found[1].quota), (500_000, quota));
        assert!(spans(&start, &[change(0, None)]).is_err());
        fs::remove_file(dir.join("cpu.stat")).expect("removable");
        assert!(spans(&start, &[]).is_err());
        let _ = fs::remove_dir(dir);
    }

    #[test]
    fn what_the_harness_did_not_write_is_named() {
        let (entry, dir) = entry("foreign");
        fs::write(dir.join("cpu.max"), "20000 100000\n").expect("writable");
        assert_eq!(foreign_quota(&entry, Some(CpuMax::Pct(20))), None);
        let told = foreign_quota(&entry, None).expect("foreign");
        assert!(told.contains("`20000 100000` in cpu.max"), "{told}");
        let _ = fs::remove_dir_all(dir);
    }
}
