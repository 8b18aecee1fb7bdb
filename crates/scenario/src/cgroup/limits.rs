//! What keeps tasks from running, and lifting it.

use super::account::parse_cpu_max;
use super::entry::Entry;
use super::{CgroupError, CgroupManager};

/// What keeps the tasks of a cgroup from running, by its own control files and those above it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Held {
    /// The narrowest quota, in CPUs.
    pub(crate) quota_cpus: Option<f64>,
    /// Its tasks are stopped.
    pub(crate) frozen: bool,
}

/// Limits that were lifted, to be put back.
#[derive(Debug, Default)]
#[must_use]
pub struct LiftedLimits {
    undo: Vec<(Entry, &'static str, String)>,
}

impl CgroupManager {
    pub(crate) fn held(&self, name: &str) -> Result<Held, CgroupError> {
        let mut held = Held::default();
        for entry in self.lineage(name)? {
            let quota = entry.read("cpu.max").ok();
            let quota = quota.as_deref().and_then(parse_cpu_max).flatten();
            if let Some(cpus) = quota.map(|quota| quota.cpus()) {
                held.quota_cpus = Some(held.quota_cpus.map_or(cpus, |other| other.min(cpus)));
            }
            held.frozen |= is_frozen(&entry);
        }
        Ok(held)
    }

    /// Lifts what keeps the tasks of these cgroups from running: `cpu.max` and `cgroup.freeze` of each, and of
    /// those above it up to the workload root. Tasks that are throttled or frozen can't be told to stop. The
    /// first error is returned with what was lifted all the same.
    pub fn lift_limits(&self, names: &[&str]) -> (LiftedLimits, Result<(), CgroupError>) {
        let mut lifted = LiftedLimits::default();
        let mut first = Ok(());
        for name in names {
            match self.lineage(name) {
                Err(error) => first = first.and(Err(error)),
                Ok(entries) => {
                    for entry in entries {
                        first = first.and(lifted.lift(&entry));
                    }
                }
            }
        }
        (lifted, first)
    }
}

impl LiftedLimits {
    fn lift(&mut self, entry: &Entry) -> Result<(), CgroupError> {
        if is_frozen(entry) {
            entry.write("cgroup.freeze", "0")?;
            self.undo
                .push((entry.clone(), "cgroup.freeze", "1".to_owned()));
        }
        // No cpu controller here: no limit either.
        let Ok(held) = entry.read("cpu.max") else {
            return Ok(());
        };
        if parse_cpu_max(&held).flatten().is_some() {
            entry.write("cpu.max", "max")?;
            self.undo
                .push((entry.clone(), "cpu.max", held.trim().to_owned()));
        }
        Ok(())
    }

    /// Puts the limits back, where the cgroup is still there. Returns the first error, after having tried
    /// all.
    pub fn restore(self) -> Result<(), CgroupError> {
        let mut first = Ok(());
        for (entry, file, value) in self.undo.into_iter().rev() {
            if entry.dir.exists() {
                first = first.and(entry.write(file, &value));
            }
        }
        first
    }
}

fn is_frozen(entry: &Entry) -> bool {
    entry
        .read("cgroup.freeze")
        .is_ok_and(|text| text.trim() == "1")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    #[test]
    fn limits_are_lifted_and_put_back() {
        let dir = std::env::temp_dir().join(format!("ktstr-limits-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("writable");
        let entry = Entry {
            dir: dir.clone(),
            write_timeout: Duration::from_secs(2),
        };
        let read = |file: &str| fs::read_to_string(dir.join(file)).expect("readable");
        fs::write(dir.join("cpu.max"), "5000 100000").expect("writable");
        fs::write(dir.join("cgroup.freeze"), "1").expect("writable");
        let mut lifted = LiftedLimits::default();
        lifted.lift(&entry).expect("writable");
        // A plain file keeps what the new text does not cover; the kernel's does not.
        assert!(read("cpu.max").starts_with("max"));
        assert_eq!(read("cgroup.freeze"), "0");
        lifted.restore().expect("writable");
        assert_eq!(read("cpu.max"), "5000 100000");
        assert_eq!(read("cgroup.freeze"), "1");
        let _ = fs::remove_dir_all(dir);
    }
}
