//! `KTSTR_CPU_CAP`.

use std::str::FromStr;

/// How many host CPUs all running machines may keep busy together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CpuCap {
    /// As many as this process may use.
    #[default]
    HostCpus,
    /// This many, at least one.
    Count(u32),
    /// No limit, and no queue.
    Off,
}

/// `KTSTR_CPU_CAP` has no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a positive number of host CPUs, or `off` to disable CPU queueing")]
pub struct CpuCapError;

impl FromStr for CpuCap {
    type Err = CpuCapError;

    fn from_str(text: &str) -> Result<Self, CpuCapError> {
        match (text, text.parse()) {
            ("off", _) => Ok(Self::Off),
            (_, Ok(count)) if count > 0 => Ok(Self::Count(count)),
            _ => Err(CpuCapError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_are_counts_or_off() {
        assert_eq!("8".parse(), Ok(CpuCap::Count(8)));
        assert_eq!("off".parse(), Ok(CpuCap::Off));
        for wrong in ["0", "-1", "", "all", "1.5"] {
            assert_eq!(wrong.parse::<CpuCap>(), Err(CpuCapError), "{wrong}");
        }
    }
}
