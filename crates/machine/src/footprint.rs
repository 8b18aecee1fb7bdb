//! Host memory of a process beyond guest RAM.

use std::fs;
use std::io;
use std::ops::Range;

use ktstr_vmm::RAM_NAME;

/// Of the process `pid`, in bytes. Guest RAM is what has its name, and what lies in `ram`: a file that is
/// mapped into guest RAM has a name of its own.
pub(crate) fn bytes(pid: u32, ram: &[Range<usize>]) -> io::Result<u64> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    Ok(footprint_kib(&smaps, ram) * 1024)
}

/// Sum of `Pss` over all mappings in `/proc/PID/smaps` but guest RAM, in KiB: what is shared with other
/// processes, such as QEMU's code, counts in part.
fn footprint_kib(smaps: &str, ram: &[Range<usize>]) -> u64 {
    let ram_name = RAM_NAME.to_string_lossy();
    let mut in_ram = false;
    let mut sum = 0;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("Pss:") if !in_ram => {
                sum += words.next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
            }
            // A mapping's first line starts with its addresses, all others with `Name:`.
            Some(first) if !first.ends_with(':') => {
                let start = first.split('-').next().unwrap_or_default();
                let start = usize::from_str_radix(start, 16).unwrap_or_default();
                in_ram = line.contains(&*ram_name) || ram.iter().any(|ram| ram.contains(&start));
            }
            _ => {}
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_footprint_leaves_guest_ram_out() {
        let smaps = "\
55d0c0a00000-55d0c0e00000 r-xp 00000000 08:01 1234 /usr/bin/qemu-system-x86_64
Size:               4096 kB
Rss:                2000 kB
Pss:                1000 kB
Pss_Dirty:             7 kB
VmFlags: rd ex mr mw me
7f0000000000-7f0020000000 rw-s 00000000 00:01 77 /memfd:ktstr-ram (deleted)
Pss:              400000 kB
7f0030000000-7f0030001000 rw-p 00000000 00:00 0
Pss:                 234 kB
7f0040000000-7f0040001000 rw-p 00200000 08:01 99 /cache/vmlinux
Pss:               50000 kB
";
        let mapped = 0x7f00_4000_0000..0x7f00_4000_1000;
        assert_eq!(footprint_kib(smaps, std::slice::from_ref(&mapped)), 1234);
        assert_eq!(footprint_kib(smaps, &[]), 51234);
    }
}
