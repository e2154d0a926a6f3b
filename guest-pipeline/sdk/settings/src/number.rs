//! Numbers of JSON by their value: 1 is 1.0, and no digit of a large one is lost.

use std::cmp::Ordering;

use serde_json::Number;

/// Fractions from here on are whole, and far from the edge of an `i128`.
const WHOLE: f64 = 1e30;

/// The number if it is whole and not beyond [`WHOLE`].
pub(crate) fn integer(number: &Number) -> Option<i128> {
    if let Some(whole) = number.as_i64() {
        return Some(whole.into());
    }
    if let Some(whole) = number.as_u64() {
        return Some(whole.into());
    }
    let float = number.as_f64()?;
    (float.fract() == 0.0 && float.abs() < WHOLE).then_some(float as i128)
}

/// Whether the number is whole, however large.
pub(crate) fn is_integer(number: &Number) -> bool {
    integer(number).is_some() || number.as_f64().is_some_and(|float| float.fract() == 0.0)
}

pub(crate) fn compare(one: &Number, other: &Number) -> Ordering {
    match (integer(one), integer(other)) {
        (Some(one), Some(other)) => one.cmp(&other),
        (Some(whole), None) => against_float(whole, other),
        (None, Some(whole)) => against_float(whole, one).reverse(),
        (None, None) => {
            let float = |number: &Number| number.as_f64().unwrap_or_default();
            float(one).total_cmp(&float(other))
        }
    }
}

/// A whole number beside one that has a fraction or is beyond [`WHOLE`].
fn against_float(whole: i128, other: &Number) -> Ordering {
    let other = other.as_f64().unwrap_or_default();
    if other.abs() >= WHOLE {
        return if other > 0.0 { Ordering::Less } else { Ordering::Greater };
    }
    // It has a fraction, so it is not equal to any whole number.
    if whole <= other.floor() as i128 { Ordering::Less } else { Ordering::Greater }
}

/// Whether `number` is a whole multiple of `divisor`, both as they are written in decimals: 0.3 is
/// one of 0.1. Dividing binary fractions would deny it.
pub(crate) fn is_multiple(number: &Number, divisor: &Number) -> bool {
    let (Some((value, power)), Some((by, by_power))) = (decimal(number), decimal(divisor)) else {
        return false;
    };
    if value == 0 || by == 0 {
        return value == 0;
    }
    let (value, by) = (u128::from(value), u128::from(by));
    let shift = power - by_power;
    if shift >= 0 {
        // Both factors are below 2^64.
        let rest = (0..shift).fold(value % by, |rest, _| rest * 10 % by);
        return rest == 0;
    }
    // A value has less than 20 digits and no zeros at its end, so it divides by no such power.
    let Some(power) = 10u128.checked_pow(shift.unsigned_abs()) else { return false };
    by.checked_mul(power).is_some_and(|by| value % by == 0)
}

/// The digits of a number without its sign and the zeros at its end, and the power of ten that they
/// are to be multiplied with.
fn decimal(number: &Number) -> Option<(u64, i32)> {
    let text = number.to_string();
    let (digits, power) = text.split_once(['e', 'E']).unwrap_or((&text, "0"));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let digits = format!("{}{fraction}", whole.trim_start_matches('-'));
    let trimmed = digits.trim_end_matches('0');
    let zeros = i32::try_from(digits.len() - trimmed.len()).ok()?;
    let power: i32 = power.parse().ok()?;
    let power = power - i32::try_from(fraction.len()).ok()? + zeros;
    if trimmed.is_empty() { Some((0, 0)) } else { Some((trimmed.parse().ok()?, power)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn numbers_are_ordered_by_value_to_the_last_digit() {
        let rising = [
            "-1e300",
            "-9007199254740993",
            "-9007199254740992",
            "-1.5",
            "-1",
            "0",
            "0.5",
            "1",
            "1.0000000000000002",
            "2",
            "9007199254740992",
            "9007199254740993",
            "18446744073709551615",
            "1e29",
            "1e300",
        ];
        for (n, one) in rising.iter().enumerate() {
            for (m, other) in rising.iter().enumerate() {
                assert_eq!(compare(&number(one), &number(other)), n.cmp(&m), "{one} {other}");
            }
        }
        assert_eq!(compare(&number("1"), &number("1.0")), Ordering::Equal);
        assert_eq!(compare(&number("0"), &number("-0.0")), Ordering::Equal);
    }

    #[test]
    fn multiples_count_in_decimals() {
        let cases = [
            ("0.3", "0.1", true),
            ("0.35", "0.1", false),
            ("0.0075", "0.0001", true),
            ("0.00751", "0.0001", false),
            ("-4.5", "1.5", true),
            ("0", "7", true),
            ("1e308", "0.123456789", false),
            ("1e308", "0.5", true),
            ("9007199254740993", "2", false),
            ("18446744073709551615", "18446744073709551615", true),
            ("1", "1e-300", true),
            ("1e-300", "1", false),
            ("12391239123", "1e-8", true),
        ];
        for (value, divisor, fits) in cases {
            assert_eq!(is_multiple(&number(value), &number(divisor)), fits, "{value} {divisor}");
        }
    }
}
