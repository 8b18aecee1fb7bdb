//! Cgroups that go when their owner does.

use super::{CgroupError, CgroupKind, CgroupManager, CgroupOps};

/// Makes cgroups and removes them when dropped, the last made first. Dropping never panics: what can't be
/// removed stays, and standard error says why.
#[derive(Debug)]
pub struct CgroupGroup<'a> {
    cgroups: &'a CgroupManager,
    names: Vec<String>,
}

impl<'a> CgroupGroup<'a> {
    /// A group without cgroups.
    pub const fn new(cgroups: &'a CgroupManager) -> Self {
        Self {
            cgroups,
            names: Vec::new(),
        }
    }

    /// Makes the cgroup `name`, to be removed with this group.
    pub fn create(&mut self, name: &str, kind: CgroupKind) -> Result<(), CgroupError> {
        self.cgroups.create(name, kind)?;
        self.names.push(name.to_owned());
        Ok(())
    }

    /// Names of its cgroups, in the order in which they were made.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Removes all of its cgroups now and returns the first error, after having tried them all.
    pub fn remove_all(mut self) -> Result<(), CgroupError> {
        let mut first = Ok(());
        while let Some(name) = self.names.pop() {
            first = first.and(self.cgroups.remove(&name));
        }
        first
    }
}

impl Drop for CgroupGroup<'_> {
    fn drop(&mut self) {
        while let Some(name) = self.names.pop() {
            if let Err(error) = self.cgroups.remove(&name) {
                warn(&name, &error);
            }
        }
    }
}

fn warn(name: &str, error: &CgroupError) {
    use std::error::Error as _;
    use std::io::Write as _;
    let cause = error
        .source()
        .map(|source| format!(": {source}"))
        .unwrap_or_default();
    // `eprintln!` panics when standard error is closed.
    let _ = writeln!(
        std::io::stderr(),
        "warning: cgroup `{name}` was left behind: {error}{cause}"
    );
}
