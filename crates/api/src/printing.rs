//! Values for Table cells.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::Value;

/// What kubectl prints for a value nobody knows yet.
pub const UNKNOWN: &str = "<unknown>";
/// What kubectl prints for an absent value.
pub const NONE: &str = "<none>";

/// The object's age as kubectl prints it (`5m3s`, `<unknown>`).
pub fn age(metadata: &ObjectMeta, now: Timestamp) -> Value {
    Value::String(since(metadata.creation_timestamp.as_ref(), now))
}

/// When the object was created, as the default table of upstream prints it (`pkg/registry/rest/table.go`).
pub fn created_at(metadata: &ObjectMeta) -> Value {
    Value::String(metadata.creation_timestamp.as_ref().map_or_else(|| UNKNOWN.to_owned(), |t| t.0.to_string()))
}

/// The time from `then` to `now` (`translateTimestampSince`).
pub fn since(then: Option<&Time>, now: Timestamp) -> String {
    then.map_or_else(|| UNKNOWN.to_owned(), |then| human_duration(now.duration_since(then.0)))
}

/// The text, or `<none>` where there is none.
pub fn or_none(text: Option<&str>) -> Value {
    Value::String(text.filter(|t| !t.is_empty()).unwrap_or(NONE).to_owned())
}

/// Items joined by commas, or `<none>`.
pub fn joined_or_none<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> Value {
    let items: Vec<T> = items.into_iter().collect();
    or_none(Some(&items.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(",")))
}

/// A duration in at most two units, the coarser the longer it is (`k8s.io/apimachinery/pkg/util/duration`,
/// `HumanDuration`). Clocks may differ by up to two seconds; anything more negative is `<invalid>`.
pub fn human_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    match seconds {
        ..=-2 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two_units(minutes, "m", seconds % 60, "s"),
        _ if minutes < 3 * 60 => format!("{minutes}m"),
        _ if hours < 8 => two_units(hours, "h", minutes % 60, "m"),
        _ if hours < 2 * 24 => format!("{hours}h"),
        _ if days < 8 => two_units(days, "d", hours % 24, "h"),
        _ if years < 2 => format!("{days}d"),
        _ if years < 8 => two_units(years, "y", days % 365, "d"),
        _ => format!("{years}y"),
    }
}

fn two_units(coarse: i64, coarse_unit: &str, fine: i64, fine_unit: &str) -> String {
    if fine == 0 { format!("{coarse}{coarse_unit}") } else { format!("{coarse}{coarse_unit}{fine}{fine_unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_kubectl_prints_them() {
        const MINUTE: i64 = 60;
        const HOUR: i64 = 60 * MINUTE;
        const DAY: i64 = 24 * HOUR;
        const YEAR: i64 = 365 * DAY;
        for (seconds, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (2 * MINUTE, "2m"),
            (2 * MINUTE + 3, "2m3s"),
            (10 * MINUTE + 5, "10m"),
            (3 * HOUR - 1, "179m"),
            (3 * HOUR, "3h"),
            (7 * HOUR + 59 * MINUTE, "7h59m"),
            (8 * HOUR + MINUTE, "8h"),
            (47 * HOUR, "47h"),
            (2 * DAY, "2d"),
            (2 * DAY + HOUR, "2d1h"),
            (8 * DAY + HOUR, "8d"),
            (2 * YEAR - DAY, "729d"),
            (2 * YEAR, "2y"),
            (2 * YEAR + DAY, "2y1d"),
            (8 * YEAR + DAY, "8y"),
        ] {
            assert_eq!(human_duration(SignedDuration::from_secs(seconds)), text, "{seconds}");
        }
        assert_eq!(human_duration(SignedDuration::new(-1, -500_000_000)), "0s");
    }

    #[test]
    fn objects_without_a_creation_time_have_no_age() {
        assert_eq!(age(&ObjectMeta::default(), Timestamp::UNIX_EPOCH), "<unknown>");
        let metadata = ObjectMeta { creation_timestamp: Some(Time(Timestamp::UNIX_EPOCH)), ..ObjectMeta::default() };
        assert_eq!(age(&metadata, Timestamp::from_second(303).unwrap()), "5m3s");
    }
}
