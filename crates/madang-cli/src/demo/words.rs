//! Numbers as people read them.

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time with two or three significant digits, in the unit that suits it.
pub(crate) fn time(us: f64) -> String {
    match us {
        us if us < 9.95 => format!("{us:.1} µs"),
        us if us < 999.5 => format!("{us:.0} µs"),
        us if us < 9_950.0 => format!("{:.1} ms", us / 1e3),
        us if us < 999_500.0 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.1} s", us / 1e6),
    }
}

pub(crate) fn mebibytes(bytes: u64) -> String {
    let mebibytes = bytes as f64 / (1 << 20) as f64;
    if mebibytes < 9.95 { format!("{mebibytes:.1} MiB") } else { format!("{mebibytes:.0} MiB") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well_at_every_size() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        for (us, text) in
            [(0.0, "0.0 µs"), (9.94, "9.9 µs"), (9.96, "10 µs"), (999.4, "999 µs"), (1_240.0, "1.2 ms")]
        {
            assert_eq!(time(us), text);
        }
        assert_eq!((&*time(45_000.0), &*time(2_500_000.0)), ("45 ms", "2.5 s"));
        assert_eq!((&*mebibytes(3 << 19), &*mebibytes(34 << 20)), ("1.5 MiB", "34 MiB"));
    }
}
