//! Moments that are kept, within a bound in number and in bytes.

use super::capture::Moment;

/// Memory that the moments of one kind of a test take at most; then no more are taken. The last may be beyond it by
/// what one look may cost.
const MAX_BYTES: u64 = 128 << 20;

/// Moments in order of time.
#[derive(Debug)]
pub(super) struct Moments {
    kept: Vec<Moment>,
    bytes: u64,
    max_count: usize,
}

impl Moments {
    pub(super) fn new(max_count: usize) -> Self {
        Self {
            kept: Vec::new(),
            bytes: 0,
            max_count,
        }
    }

    /// To be asked before one more is taken. The error says why it would not be kept.
    pub(super) fn has_room(&self) -> Result<(), String> {
        if self.kept.len() >= self.max_count {
            return Err(format!("a test keeps at most {}", self.max_count));
        }
        if self.bytes >= MAX_BYTES {
            let mib = MAX_BYTES >> 20;
            return Err(format!(
                "those before it take {mib} MiB, the most that a test keeps"
            ));
        }
        Ok(())
    }

    pub(super) fn push(&mut self, moment: Moment) {
        self.bytes = self.bytes.saturating_add(moment.kernel.memory_bytes());
        self.kept.push(moment);
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn into_vec(self) -> Vec<Moment> {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use ktstr_monitor::state::{KernelState, MapContent, MapState};
    use ktstr_monitor::{Missing, Value};

    use super::*;

    fn moment(bytes: usize) -> Moment {
        let map = MapState {
            id: 1,
            name: ".bss".to_owned(),
            kind: "array".to_owned(),
            content: Ok(MapContent::Globals(Value::Bytes(vec![0; bytes]))),
        };
        Moment {
            label: "one".to_owned(),
            at_ns: 0,
            stopped_ns: 0,
            vcpus: Err(Missing::Unstable),
            kernel: KernelState {
                cpus: Err(Missing::Unstable),
                sched_ext: Err(Missing::Unstable),
                maps: Ok(vec![map]),
                exhausted: None,
            },
        }
    }

    #[test]
    fn fault_d4_snapshots_have_a_bound_in_bytes() {
        let mut moments = Moments::new(1000);
        while moments.has_room().is_ok() {
            moments.push(moment(10 << 20));
        }
        assert_eq!(moments.len(), 13);
        let why = "those before it take 128 MiB, the most that a test keeps";
        assert_eq!(moments.has_room(), Err(why.to_owned()));
        let mut moments = Moments::new(3);
        while moments.has_room().is_ok() {
            moments.push(moment(1));
        }
        assert_eq!(moments.into_vec().len(), 3);
    }
}
