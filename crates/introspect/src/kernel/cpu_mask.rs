//! Sets of CPUs (`struct cpumask`).

use std::fmt;

/// A set of CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuMask {
    words: Vec<u64>,
}

impl CpuMask {
    /// From the words of a bitmap, of which CPUs from `cpus` on don't exist.
    pub(super) fn new(mut words: Vec<u64>, cpus: u32) -> Self {
        for (word, first) in words.iter_mut().zip((0_u32..).step_by(64)) {
            let left = cpus.saturating_sub(first).min(64);
            *word &= u64::MAX.checked_shr(64 - left).unwrap_or(0);
        }
        Self { words }
    }

    /// Bytes of a bitmap of so many CPUs.
    pub(super) fn bytes(cpus: u32) -> u64 {
        u64::from(cpus.div_ceil(64)) * 8
    }

    /// From the bytes of a bitmap.
    pub(super) fn from_bytes(bytes: &[u8], cpus: u32) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        Self::new(
            words.iter().map(|&word| u64::from_le_bytes(word)).collect(),
            cpus,
        )
    }

    /// Whether `cpu` is in it.
    pub fn contains(&self, cpu: u32) -> bool {
        let word = self.words.get((cpu / 64) as usize);
        word.is_some_and(|word| word >> (cpu % 64) & 1 == 1)
    }

    /// Its CPUs, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0_u32..)
            .step_by(64)
            .zip(&self.words)
            .flat_map(|(first, word)| {
                (0..64)
                    .filter(move |bit| word >> bit & 1 == 1)
                    .map(move |bit| first + bit)
            })
    }

    /// How many CPUs are in it.
    pub fn len(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// As the kernel writes lists: `0-3,8`.
impl fmt::Display for CpuMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpus: Vec<u32> = self.iter().collect();
        let runs = cpus.chunk_by(|one, next| one + 1 == *next);
        for (number, run) in runs.enumerate() {
            let comma = if number > 0 { "," } else { "" };
            match run {
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                _ => write!(f, "{comma}{}", run[0])?,
            }
        }
        Ok(())
    }
}
