//! What one look at a guest may cost the host.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// The clock is read once in so many charges: it takes as long as the read of a word of guest memory.
const CHARGES_PER_CLOCK_READ: u32 = 256;
/// A charge of so many bytes reads the clock at once.
const LARGE_BYTES: u64 = 1 << 20;

/// What a [`Budget`] begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetLimits {
    /// Bytes that are read from guest memory, and of names and text that are made from it.
    pub bytes: u64,
    /// Nodes: of lists and tables, entries of maps, BTF types, and rendered values.
    pub nodes: u64,
    /// Wall time.
    pub time: Duration,
}

impl Default for BudgetLimits {
    /// Enough for 30,000 tasks, or for a hundred BPF objects with their maps; a usual kernel's state takes a
    /// hundredth.
    fn default() -> Self {
        Self {
            bytes: 128 << 20,
            nodes: 1 << 20,
            time: Duration::from_secs(5),
        }
    }
}

/// What is left of what one look may cost: bytes, nodes and time.
///
/// A guest decides how long its lists are, how many objects it has and what their types say. Whatever walks,
/// reads or renders that is given a budget, and all that belongs to one look is given the same one, so that
/// the sum is bounded. A budget that is exhausted stays so: all that comes after fails at once, with the same
/// error. What is bounded by the declared machine (a runqueue of each CPU) needs none.
#[derive(Debug)]
pub struct Budget {
    limits: BudgetLimits,
    began: Instant,
    bytes_left: Cell<u64>,
    nodes_left: Cell<u64>,
    charges: Cell<u32>,
    exhausted: Cell<Option<BudgetExhausted>>,
}

/// A look costs more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BudgetExhausted {
    /// In bytes.
    #[error("the look at the guest's memory ended: it would read more than {} MiB", limit_bytes >> 20)]
    Bytes {
        /// The most that it may read.
        limit_bytes: u64,
    },
    /// In nodes.
    #[error(
        "the look at the guest's memory ended: its lists, tables and types have more than {limit} nodes"
    )]
    Nodes {
        /// The most that it may visit.
        limit: u64,
    },
    /// In time.
    #[error("the look at the guest's memory ended: it would take more than {limit_ms} ms")]
    Time {
        /// The longest that it may take.
        limit_ms: u64,
    },
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(BudgetLimits::default())
    }
}

impl Budget {
    /// For a look that begins now.
    pub fn new(limits: BudgetLimits) -> Self {
        Self {
            limits,
            began: Instant::now(),
            bytes_left: Cell::new(limits.bytes),
            nodes_left: Cell::new(limits.nodes),
            charges: Cell::new(0),
            exhausted: Cell::new(None),
        }
    }

    /// To be called before so many bytes are read or made.
    pub fn charge_bytes(&self, bytes: u64) -> Result<(), BudgetExhausted> {
        self.check_time(bytes >= LARGE_BYTES)?;
        let Some(left) = self.bytes_left.get().checked_sub(bytes) else {
            let limit_bytes = self.limits.bytes;
            return Err(self.exhaust(BudgetExhausted::Bytes { limit_bytes }));
        };
        self.bytes_left.set(left);
        Ok(())
    }

    /// To be called before so many nodes are visited or made.
    pub fn charge_nodes(&self, nodes: u64) -> Result<(), BudgetExhausted> {
        self.check_time(false)?;
        let Some(left) = self.nodes_left.get().checked_sub(nodes) else {
            let limit = self.limits.nodes;
            return Err(self.exhaust(BudgetExhausted::Nodes { limit }));
        };
        self.nodes_left.set(left);
        Ok(())
    }

    /// Why the look ended before its end; nothing if it did not.
    pub fn exhausted(&self) -> Option<BudgetExhausted> {
        self.exhausted.get()
    }

    /// What was charged so far; the time is what has passed.
    pub fn spent(&self) -> BudgetLimits {
        BudgetLimits {
            bytes: self.limits.bytes - self.bytes_left.get(),
            nodes: self.limits.nodes - self.nodes_left.get(),
            time: self.began.elapsed(),
        }
    }

    fn check_time(&self, at_once: bool) -> Result<(), BudgetExhausted> {
        if let Some(exhausted) = self.exhausted.get() {
            return Err(exhausted);
        }
        let charges = self.charges.get().wrapping_add(1);
        self.charges.set(charges);
        let is_due = at_once || charges.is_multiple_of(CHARGES_PER_CLOCK_READ);
        if is_due && self.began.elapsed() > self.limits.time {
            let limit_ms = u64::try_from(self.limits.time.as_millis()).unwrap_or(u64::MAX);
            return Err(self.exhaust(BudgetExhausted::Time { limit_ms }));
        }
        Ok(())
    }

    fn exhaust(&self, why: BudgetExhausted) -> BudgetExhausted {
        self.exhausted.set(Some(why));
        why
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: BudgetLimits = BudgetLimits {
        bytes: 100,
        nodes: 3,
        time: Duration::from_secs(3600),
    };

    #[test]
    fn a_budget_that_is_exhausted_stays_so() {
        let budget = Budget::new(SMALL);
        assert_eq!(budget.charge_bytes(100), Ok(()));
        assert_eq!(budget.exhausted(), None);
        let bytes = BudgetExhausted::Bytes { limit_bytes: 100 };
        assert_eq!(budget.charge_bytes(1), Err(bytes));
        assert_eq!(budget.charge_nodes(1), Err(bytes));
        assert_eq!(budget.exhausted(), Some(bytes));
        let budget = Budget::new(SMALL);
        assert_eq!(budget.charge_nodes(2), Ok(()));
        let nodes = BudgetExhausted::Nodes { limit: 3 };
        assert_eq!(budget.charge_nodes(2), Err(nodes));
        assert_eq!((budget.spent().bytes, budget.spent().nodes), (0, 2));
    }

    #[test]
    fn time_that_is_over_ends_a_look_after_a_few_charges() {
        let time = Duration::ZERO;
        let budget = Budget::new(BudgetLimits {
            bytes: u64::MAX,
            nodes: u64::MAX,
            time,
        });
        let charged = (0..).take_while(|_| budget.charge_nodes(1).is_ok()).count();
        assert!(charged < CHARGES_PER_CLOCK_READ as usize, "{charged}");
        let over = BudgetExhausted::Time { limit_ms: 0 };
        assert_eq!(budget.exhausted(), Some(over));
        let budget = Budget::new(BudgetLimits { time, ..SMALL });
        assert_eq!(budget.charge_bytes(LARGE_BYTES), Err(over));
    }
}
