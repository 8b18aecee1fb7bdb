//! Figures with their units, as a person reads them.

/// `812 ms`, `5.2 s`, `3 min 20 s`.
pub(super) fn wall_ms(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms / 100 % 10),
        _ => format!("{} min {} s", ms / 60_000, ms / 1_000 % 60),
    }
}

/// `640 ns`, `12.5 µs`, `3.1 ms`, `2.4 s`.
pub(super) fn span_ns(ns: u64) -> String {
    let (unit_ns, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    format!("{}.{} {unit}", ns / unit_ns, ns % unit_ns * 10 / unit_ns)
}

/// A measured value with its unit: up to three decimals, as many as it needs.
pub(super) fn value(value: f64, unit: &str) -> String {
    let tiny = value != 0.0 && value.abs() < 0.001;
    let huge = value.abs() >= 1e15;
    let number = if tiny || huge {
        format!("{value:.2e}")
    } else {
        let digits = format!("{value:.3}");
        if digits.contains('.') {
            digits
                .trim_end_matches('0')
                .trim_end_matches('.')
                .to_owned()
        } else {
            digits
        }
    };
    match unit {
        "" => number,
        _ => format!("{number} {unit}"),
    }
}

/// `1 check`, `2 checks`.
pub(super) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well_at_every_scale() {
        assert_eq!(wall_ms(999), "999 ms");
        assert_eq!(wall_ms(5_249), "5.2 s");
        assert_eq!(wall_ms(59_999), "59.9 s");
        assert_eq!(wall_ms(200_500), "3 min 20 s");
        assert_eq!(span_ns(999), "999 ns");
        assert_eq!(span_ns(12_560), "12.5 µs");
        assert_eq!(span_ns(3_120_400_000), "3.1 s");
        assert_eq!(span_ns(u64::MAX), "18446744073.7 s");
        assert_eq!(value(2000.0, "ms"), "2000 ms");
        assert_eq!(value(15.25, "%"), "15.25 %");
        assert_eq!(value(0.0, ""), "0");
        assert_eq!(value(0.000_04, "s"), "4.00e-5 s");
        assert_eq!(value(f64::NAN, "ms"), "NaN ms");
        assert_eq!(value(f64::MAX, ""), "1.80e308");
    }
}
