//! Durations as Go writes them: `5s`, `500ms`, `1m30s`.

use std::time::Duration;

/// Go counts nanoseconds in 63 bits.
const LONGEST: f64 = 9_223_372_036.0;

/// Reads a duration in the form of Go's `time.ParseDuration`; a negative one is none here.
pub(super) fn go_duration(text: &str) -> Result<Duration, String> {
    parse(text).ok_or_else(|| "write a duration such as 5s, 500ms or 1m30s".to_owned())
}

fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let mut seconds = 0.0;
    loop {
        let (number, tail) = rest.split_at(rest.find(|c| !is_number(c))?);
        let (unit, tail) = tail.split_at(tail.find(is_number).unwrap_or(tail.len()));
        seconds += number.parse::<f64>().ok()? * seconds_in(unit)?;
        rest = tail;
        if rest.is_empty() {
            break;
        }
    }
    Duration::try_from_secs_f64(seconds).ok().filter(|_| seconds <= LONGEST)
}

fn seconds_in(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        // The micro sign and the Greek letter both stand for micro.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_go_is_read() {
        let millis = |text| go_duration(text).map(|duration| duration.as_millis());
        for (text, expected) in [
            ("5s", 5_000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            (".5s", 500),
            ("+2.s", 2_000),
            ("1h1m1s1ms", 3_661_001),
            ("2000us", 2),
            ("2000\u{b5}s", 2),
            ("0", 0),
        ] {
            assert_eq!(millis(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "5", "s", "-5s", "5 s", "1d", "5s3", ".s", "1..5s", "inf", "1e3s", "2562048h", "5S"]
        {
            assert!(go_duration(text).is_err(), "{text}");
        }
    }
}
