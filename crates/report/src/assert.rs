//! Which checks a test wants, and their bounds.

use ktstr_declaration::{Check, JudgedBy, Preset, for_each_check};

/// How a check is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting<T> {
    /// Turned off.
    Off(OffBy),
    /// It has no bound: the library has none, and the test sets none.
    Unset,
    /// On, as the library presets it. It is left out where the library knows that it says nothing.
    Library(T),
    /// On by the test's own word, and always judged.
    Test(T),
}

/// Who turned a check off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffBy {
    /// The test.
    Test,
    /// The declaration of this scheduler, which ignores by design what it checks.
    Scheduler(&'static str),
}

impl<T: Copy> Setting<T> {
    /// The bound, if the check is on.
    pub const fn get(&self) -> Option<T> {
        match self {
            Self::Off(_) | Self::Unset => None,
            Self::Library(bound) | Self::Test(bound) => Some(*bound),
        }
    }

    /// Whether the test itself turned it on.
    pub const fn is_by_test(&self) -> bool {
        matches!(self, Self::Test(_))
    }

    /// Why the check is not judged, if it is not on.
    pub fn why_not(&self) -> Option<String> {
        match self {
            Self::Off(OffBy::Test) => Some("turned off by the test".to_owned()),
            Self::Off(OffBy::Scheduler(name)) => Some(format!("turned off by scheduler `{name}`")),
            Self::Unset => Some("the test sets no bound".to_owned()),
            Self::Library(_) | Self::Test(_) => None,
        }
    }
}

/// The checks of a test: a setting for each, by the name of the attribute of `#[ktstr_test]`.
///
/// [`Assert::DEFAULT`] has on what every test should hold to. Each check can be given another bound or turned off;
/// what is off is named as not judged in the report. Checks that depend on the load have no bound until a test
/// gives them one.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct Assert {
    /// Switches have no bound, so theirs is 0.
    settings: [Setting<f64>; Check::COUNT],
    sustained_samples: u32,
}

impl Default for Assert {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Assert {
    /// Samples in a row that must be beyond a bound of the monitor unless the test says otherwise.
    pub const SUSTAINED_SAMPLES: u32 = 5;

    /// The checks of a test that says nothing about them.
    pub const DEFAULT: Self = {
        let mut settings = [Setting::Unset; Check::COUNT];
        let mut at = 0;
        while at < Check::COUNT {
            let preset = Check::ALL[at].spec().preset;
            settings[at] = match (preset, preset.bound()) {
                (Preset::On, _) => Setting::Library(0.0),
                (_, Some(bound)) => Setting::Library(bound),
                (_, None) => Setting::Unset,
            };
            at += 1;
        }
        Self {
            settings,
            sustained_samples: Self::SUSTAINED_SAMPLES,
        }
    };

    /// How `check` is set.
    pub const fn of(&self, check: Check) -> Setting<f64> {
        self.settings[check as usize]
    }

    /// Samples in a row that break a bound of the monitor.
    pub const fn window(&self) -> u32 {
        self.sustained_samples
    }

    const fn set(mut self, check: Check, setting: Setting<f64>) -> Self {
        self.settings[check as usize] = setting;
        self
    }

    /// Turns `check` off.
    pub const fn off(self, check: Check) -> Self {
        self.set(check, Setting::Off(OffBy::Test))
    }

    /// Turns `check` off in the name of a scheduler that ignores by design what it checks.
    ///
    /// # Panics
    ///
    /// When it is none of those that a scheduler can turn off; at compile time, if used in a constant.
    pub const fn off_by_scheduler(self, check: Check, scheduler: &'static str) -> Self {
        assert!(
            check.spec().scheduler_may_ignore,
            "a scheduler can't turn this check off"
        );
        self.set(check, Setting::Off(OffBy::Scheduler(scheduler)))
    }

    /// Puts the monitor's checks at their customary bounds, those included that have none by default.
    pub const fn with_monitor_defaults(mut self) -> Self {
        let mut at = 0;
        while at < Check::COUNT {
            let spec = Check::ALL[at].spec();
            if matches!(spec.judged_by, JudgedBy::Monitor) {
                self.settings[at] = match spec.preset.customary() {
                    Some(bound) => Setting::Test(bound),
                    None => Setting::Test(0.0),
                };
            }
            at += 1;
        }
        self
    }

    /// Samples in a row, one every 100 ms, that must be beyond a bound of the monitor to break it.
    pub const fn sustained_samples(mut self, samples: u32) -> Self {
        self.sustained_samples = samples;
        self
    }
}

/// The methods of one check.
macro_rules! setter {
    (Fixed $($rest:tt)*) => {};
    (Switch [$($text:literal)+] $variant:ident $name:ident) => {
        $(#[doc = $text])+
        pub const fn $name(self, on: bool) -> Self {
            match on {
                true => self.set(Check::$variant, Setting::Test(0.0)),
                false => self.off(Check::$variant),
            }
        }
    };
    (Whole [$($text:literal)+] $variant:ident $name:ident $no_name:ident) => {
        $(#[doc = $text])+
        #[expect(clippy::cast_precision_loss, reason = "bounds are far below 2^53")]
        pub const fn $name(self, bound: u64) -> Self {
            self.set(Check::$variant, Setting::Test(bound as f64))
        }
        setter!(no $variant $name $no_name);
    };
    (Number [$($text:literal)+] $variant:ident $name:ident $no_name:ident) => {
        $(#[doc = $text])+
        pub const fn $name(self, bound: f64) -> Self {
            self.set(Check::$variant, Setting::Test(bound))
        }
        setter!(no $variant $name $no_name);
    };
    (no $variant:ident $name:ident $no_name:ident) => {
        #[doc = concat!("Turns `", stringify!($name), "` off.")]
        pub const fn $no_name(self) -> Self {
            self.off(Check::$variant)
        }
    };
}

macro_rules! setters {
    ($(
        $(#[doc = $text:literal])+
        $variant:ident $name:ident $($no_name:ident)?: $takes:ident, $preset:expr, $unit:literal, $judge:ident,
            $may_ignore:literal, [$($cause:ident),*];
    )+) => {
        /// A method for each check, from its row.
        impl Assert {
            $(setter!($takes [$($text)+] $variant $name $($no_name)?);)+
        }
    };
}

for_each_check!(setters);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_the_rows() {
        let preset = Assert::DEFAULT;
        assert_eq!(preset.of(Check::Progress), Setting::Library(0.0));
        assert_eq!(preset.of(Check::MaxFallbackRate), Setting::Library(200.0));
        assert_eq!(preset.of(Check::MaxMigrationRatio), Setting::Unset);
        let customary = preset.with_monitor_defaults();
        assert_eq!(customary.of(Check::MaxImbalanceRatio), Setting::Test(4.0));
        assert_eq!(customary.of(Check::Progress), preset.of(Check::Progress));
    }

    #[test]
    fn the_last_word_counts_and_says_whose_it_is() {
        let by_scheduler = Assert::DEFAULT.off_by_scheduler(Check::CpuShare, "plain");
        let why = by_scheduler.of(Check::CpuShare).why_not();
        assert_eq!(why.as_deref(), Some("turned off by scheduler `plain`"));
        let on = by_scheduler.cpu_share(true);
        assert!(on.of(Check::CpuShare).is_by_test());
        let off = on.max_gap_ms(7).no_max_gap_ms().of(Check::MaxGapMs);
        assert_eq!(off.why_not().as_deref(), Some("turned off by the test"));
        assert_eq!(on.max_gap_ms(7).of(Check::MaxGapMs), Setting::Test(7.0));
    }
}
