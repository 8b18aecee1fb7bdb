//! Which CPUs share a last-level cache.

use std::fs;
use std::io;
use std::path::Path;

const CPUS: &str = "/sys/devices/system/cpu";

/// The LLCs of this machine.
#[derive(Debug)]
pub(crate) struct Llcs {
    /// Number of the LLC of each CPU that is possible, from 0 on.
    pub(crate) of_cpu: Vec<u32>,
    /// How many LLCs there are, at least 1.
    pub(crate) count: u32,
}

impl Llcs {
    pub(crate) fn read() -> io::Result<Self> {
        Self::read_below(Path::new(CPUS))
    }

    /// CPUs whose caches the kernel doesn't show (offline ones) count as in LLC 0.
    fn read_below(cpus: &Path) -> io::Result<Self> {
        let possible = fs::read_to_string(cpus.join("possible"))?;
        let last = possible.trim().rsplit([',', '-']).next();
        let last: usize = last.and_then(|last| last.parse().ok()).ok_or_else(|| {
            io::Error::other(format!("`{}` is not a list of CPUs", possible.trim()))
        })?;
        let mut known: Vec<String> = Vec::new();
        let mut of_cpu = Vec::with_capacity(last + 1);
        for cpu in 0..=last {
            let llc = shared_with(&cpus.join(format!("cpu{cpu}/cache"))).map_or(0, |shared| {
                known
                    .iter()
                    .position(|other| *other == shared)
                    .unwrap_or_else(|| {
                        known.push(shared);
                        known.len() - 1
                    })
            });
            of_cpu.push(u32::try_from(llc).map_err(io::Error::other)?);
        }
        let count = u32::try_from(known.len().max(1)).map_err(io::Error::other)?;
        Ok(Self { of_cpu, count })
    }
}

/// The CPUs that share the cache of the highest level, as the kernel writes them.
fn shared_with(caches: &Path) -> Option<String> {
    let level = |cache: &Path| -> Option<u32> {
        let text = fs::read_to_string(cache.join("level")).ok()?;
        text.trim().parse().ok()
    };
    let last = fs::read_dir(caches)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("level").exists())
        .max_by_key(|path| level(path))?;
    fs::read_to_string(last.join("shared_cpu_list")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_with_the_same_last_cache_are_together() {
        let folder = std::env::temp_dir().join(format!("scx-ktstr-llcs-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
            fs::write(path, text).expect("writable");
        };
        write("possible", "0-4\n");
        for (cpu, shared) in [(0, "0-1"), (1, "0-1"), (2, "2-3"), (3, "2-3")] {
            write(&format!("cpu{cpu}/cache/index0/level"), "1\n");
            let own = cpu.to_string();
            write(&format!("cpu{cpu}/cache/index0/shared_cpu_list"), &own);
            write(&format!("cpu{cpu}/cache/index3/level"), "3\n");
            write(&format!("cpu{cpu}/cache/index3/shared_cpu_list"), shared);
        }
        let llcs = Llcs::read_below(&folder).expect("readable");
        fs::remove_dir_all(&folder).expect("removable");
        assert_eq!((llcs.of_cpu, llcs.count), (vec![0, 0, 1, 1, 0], 2));
    }
}
