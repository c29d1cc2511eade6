//! Conversion of the core's names to JavaScript's spelling.

use feishu_feed_card::binding::options::{ClientOption, Kind};

/// Arguments and fields, other than options, that are durations. JavaScript has them in milliseconds.
const DURATIONS: [&str; 2] = ["total_timeout", "retry_after"];

/// `base_url` → `baseUrl`, `connect_timeout` → `connectTimeoutMs`.
pub(crate) fn in_javascript(name: &str) -> String {
    let option = ClientOption::named(name).map(|option| option.kind);
    let is_duration = matches!(option, Some(Kind::Duration(_) | Kind::DurationOrZero(_)));
    let unit = if is_duration || DURATIONS.contains(&name) {
        "Ms"
    } else {
        ""
    };
    camel_case(name) + unit
}

/// `log_id` → `logId`.
pub(crate) fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut text, word| {
        let mut letters = word.chars();
        text.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        text + letters.as_str()
    })
}

#[cfg(test)]
mod tests {
    use super::in_javascript;

    #[test]
    fn names_are_those_of_javascript() {
        for (name, expected) in [
            ("proxy", "proxy"),
            ("feed_card_id", "feedCardId"),
            ("set_bot_time_sensitive", "setBotTimeSensitive"),
            ("timeout", "timeoutMs"),
            ("retry_after", "retryAfterMs"),
        ] {
            assert_eq!(in_javascript(name), expected);
        }
    }
}
