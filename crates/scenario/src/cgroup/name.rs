//! Names of cgroups, relative to the workload root.

use super::CgroupError;

/// Longest part of a name: the limit of a file name (`NAME_MAX`).
const MAX_PART_BYTES: usize = 255;

/// Checks that `name` names a cgroup below the workload root and nothing else: parts joined by `/`, none
/// of them empty, `.` or `..`, none that could be taken for an interface file.
pub(super) fn check(name: &str) -> Result<(), CgroupError> {
    let refuse = |why: &'static str| {
        Err(CgroupError::BadName {
            name: name.to_owned(),
            why,
        })
    };
    for part in name.split('/') {
        match part {
            "" => return refuse("it has an empty part"),
            "." | ".." => return refuse("`.` and `..` are not allowed"),
            _ if part.len() > MAX_PART_BYTES => return refuse("a part is longer than 255 bytes"),
            _ if part.contains(|c: char| c.is_control()) => {
                return refuse("it has a control character");
            }
            _ if is_interface_file(part) => {
                return refuse(
                    "a part begins like a control file (`cgroup.`, `cpu.`, `memory.`, ...)",
                );
            }
            _ => {}
        }
    }
    Ok(())
}

/// The names of the cgroups above `name`, outermost first: `a`, `a/b` for `a/b/c`.
pub(super) fn ancestors(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').map(|(at, _)| &name[..at])
}

fn is_interface_file(part: &str) -> bool {
    const PREFIXES: [&str; 11] = [
        "cgroup.", "cpu.", "cpuset.", "memory.", "io.", "pids.", "hugetlb.", "rdma.", "misc.",
        "irq.", "dmem.",
    ];
    PREFIXES.iter().any(|prefix| part.starts_with(prefix))
}
