//! What weights entitle to: max-min fair shares.

/// Weight of each niceness from -20 on: `sched_prio_to_weight` in kernel/sched/core.c.
const NICE_WEIGHTS: [u32; 40] = [
    88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916, 9548, 7620, 6100, 4904,
    3906, 3121, 2501, 1991, 1586, 1277, 1024, 820, 655, 526, 423, 335, 272, 215, 172, 137, 110, 87,
    70, 56, 45, 36, 29, 23, 18, 15,
];

/// Weight of a task of SCHED_OTHER.
pub(super) fn nice_weight(nice: i32) -> f64 {
    let index = usize::try_from(nice.clamp(-20, 19) + 20).unwrap_or(20);
    f64::from(NICE_WEIGHTS[index])
}

/// One that wants a share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) weight: f64,
    /// Most that it can use.
    pub(super) cap: f64,
}

/// Shares `total` out by weight. What one can't use goes to the others, by weight again.
pub(super) fn share_out(total: f64, claims: &[Claim]) -> Vec<f64> {
    let mut shares = vec![0.0; claims.len()];
    let mut open: Vec<usize> = (0..claims.len()).collect();
    let mut left = total;
    while !open.is_empty() {
        let weights: f64 = open.iter().map(|&at| claims[at].weight).sum();
        let due = |at: usize| left * claims[at].weight / weights;
        let (full, rest): (Vec<usize>, Vec<usize>) =
            open.iter().partition(|&&at| claims[at].cap <= due(at));
        if full.is_empty() || weights <= 0.0 {
            for at in open {
                shares[at] = due(at);
            }
            break;
        }
        for at in full {
            shares[at] = claims[at].cap;
            left -= claims[at].cap;
        }
        open = rest;
    }
    shares
}

/// How much of all that was got went to the wrong ones, in percent: 0 if each got what it is entitled to.
pub(super) fn misallocated_pct(got: &[f64], entitled: &[f64]) -> f64 {
    let total: f64 = got.iter().sum();
    let excess = got
        .iter()
        .zip(entitled)
        .map(|(got, due)| (got - due).max(0.0));
    excess.sum::<f64>() * 100.0 / total
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shares(total: f64, claims: &[(f64, f64)]) -> Vec<f64> {
        let claims: Vec<Claim> = claims
            .iter()
            .map(|&(weight, cap)| Claim { weight, cap })
            .collect();
        share_out(total, &claims)
    }

    #[test]
    fn what_one_can_not_use_goes_to_the_others() {
        assert_eq!(shares(9.0, &[(400.0, 9.0), (50.0, 9.0)]), [8.0, 1.0]);
        // Entitled to 3.5 of 4 CPUs, with workers for one.
        assert_eq!(shares(4.0, &[(700.0, 1.0), (100.0, 4.0)]), [1.0, 3.0]);
        assert_eq!(shares(2.0, &[(1.0, 0.5), (1.0, 0.5)]), [0.5, 0.5]);
        let shared = shares(3.5, &[(1.0, 0.5), (1.0, 9.0), (2.0, 9.0)]);
        assert_eq!(shared, [0.5, 1.0, 2.0]);
        assert!(shares(1.0, &[]).is_empty());
    }

    #[test]
    fn the_table_of_nice_levels_is_the_kernels() {
        let weights = [-20, 0, 5, 19].map(nice_weight);
        assert_eq!(weights, [88761.0, 1024.0, 335.0, 15.0]);
    }

    #[test]
    fn what_went_wrong_is_a_part_of_the_whole() {
        let entitled = shares(100.0, &[(400.0, 100.0), (50.0, 100.0)]);
        let wrong = misallocated_pct(&[52.15, 47.85], &entitled);
        assert!((36.0..37.0).contains(&wrong), "{wrong}");
        assert!(misallocated_pct(&entitled, &entitled) < 1e-9);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nobody_gets_more_than_fits(
            total in 0.1..64.0,
            claims in proptest::collection::vec((1.0..10_000.0, 0.1..64.0), 1..8),
        ) {
            let shares = shares(total, &claims);
            let caps: f64 = claims.iter().map(|(_, cap)| cap).sum();
            prop_assert!((shares.iter().sum::<f64>() - total.min(caps)).abs() < 1e-6);
            for (share, (_, cap)) in shares.iter().zip(&claims) {
                prop_assert!(*share <= cap + 1e-9);
            }
        }
    }
}
