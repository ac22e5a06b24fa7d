//! Texts inside documents: Go's numbers and durations, and quoting for people.
//!
//! Owns: the text that Calico's tools make of a bare number (Go's `FormatFloat(v, 'g', -1, 32)`), Go durations
//! (DS-15). Never: knows fields.

use serde_json::Number;

/// Longest text that is shown whole in a message.
const SHOWN: usize = 80;

/// `text` in quotes, without control characters, cut where it is long.
pub fn quoted(text: &str) -> String {
    let mut end = SHOWN.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let head = text.get(..end).unwrap_or_default();
    if end < text.len() { format!("{head:?}…") } else { format!("{head:?}") }
}

/// The text of a bare number in a place for text.
pub fn number(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => go_float(float),
        _ => number.to_string(),
    }
}

/// Go's `strconv.FormatFloat(value, 'g', -1, 32)`: what sigs.k8s.io/yaml makes of a float where a string is wanted.
fn go_float(value: f64) -> String {
    let narrow = value as f32;
    if !narrow.is_finite() {
        return if narrow > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{narrow:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        // For shortest digits Go decides as for six.
        Ok(exponent) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ => narrow.to_string(),
    }
}

/// A Go duration (`time.ParseDuration`) in nanoseconds, or `None`.
pub fn go_duration(text: &str) -> Option<i128> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (figure, tail) = rest.split_at(end);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, next) = tail.split_at(end);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = figure.split_once('.').unwrap_or((figure, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()?.into() };
        // Digits below a nanosecond of an hour do not count.
        let fraction = fraction.get(..fraction.len().min(15))?;
        let part = match fraction.parse::<u64>() {
            Ok(part) => {
                i128::from(part).checked_mul(unit)?
                    / 10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?
            }
            Err(_) => 0,
        };
        total = total.checked_add(whole.checked_mul(unit)?)?.checked_add(part)?;
        // Go's durations are 64-bit.
        if total > i64::MAX.into() {
            return None;
        }
        rest = next;
    }
    Some(if negative { -total } else { total })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("10s", 10_000_000_000),
            ("1m30s", 90_000_000_000),
            ("500ms", 500_000_000),
            ("1h0m0s", 3_600_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("0", 0),
            ("-2s", -2_000_000_000),
            ("+2s", 2_000_000_000),
            ("1us", 1_000),
        ] {
            assert_eq!(go_duration(text), Some(nanos), "{text}");
        }
        for bad in ["", "10", "s", "1.2.3s", ".s", "1d", "1 s", "s1", "--1s", "9999999999h", "1é"] {
            assert_eq!(go_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn long_and_hostile_texts_are_shown_short_and_without_control_characters() {
        assert_eq!(quoted("a\n\u{1b}[31mb"), r#""a\n\u{1b}[31mb""#);
        assert!(quoted(&"é".repeat(1000)).len() < 200);
    }
}
