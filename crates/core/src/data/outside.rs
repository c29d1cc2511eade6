//! Text from outside: from the platform, a gateway, a proxy or a token provider.
//!
//! It is shown in errors, outcomes and log records. There it must not reveal a secret, forge a log line, control a
//! terminal or fill a disk.

use std::fmt;

use crate::data::secret::{Mask, mask_basic};

/// Longest quotation inside a message, in characters.
pub(crate) const MAX_QUOTED: usize = 500;

/// Longest text kept as a value of its own, such as `msg` or the reason of one failed user, in characters.
pub(crate) const MAX_KEPT: usize = 4000;

/// Masks the secrets, then makes the text printable. In this order, because the mask would not recognise a token that
/// was cut or escaped.
pub(crate) fn admit(text: impl Into<String>, mask: Mask<'_>, most: usize) -> String {
    let mut text = text.into();
    mask(&mut text);
    mask_basic(&mut text);
    printable(text, most)
}

/// Quotes an error: printable, and cut to [`MAX_QUOTED`] characters.
pub(crate) fn quoted(text: impl fmt::Display) -> String {
    admit(text.to_string(), &|_| {}, MAX_QUOTED)
}

/// [`make_printable`] for an owned text.
pub(crate) fn printable(mut text: String, most: usize) -> String {
    make_printable(&mut text, most);
    text
}

/// Escapes the characters that a log or a terminal would interpret, and cuts the text after `most` characters.
/// Idempotent.
pub(crate) fn make_printable(text: &mut String, most: usize) {
    // No text has more characters than bytes.
    if text.len() <= most && !text.contains(must_be_escaped) {
        return;
    }
    let mut printable = String::with_capacity(text.len().min(4 * most));
    let mut left = most;
    for character in text.chars() {
        if must_be_escaped(character) {
            let escaped = character.escape_default();
            let Some(rest) = left.checked_sub(escaped.len()) else {
                printable.push('…');
                break;
            };
            left = rest;
            printable.extend(escaped);
        } else if left == 0 {
            printable.push('…');
            break;
        } else {
            left -= 1;
            printable.push(character);
        }
    }
    *text = printable;
}

/// Control characters (C0, DEL, C1), line separators, and the marks that reorder the text around them.
fn must_be_escaped(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{2028}' | '\u{2029}'
            | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_would_interpret_is_escaped() {
        for (text, shown) in [
            ("提醒 ok", "提醒 ok"),
            ("a\r\nb\tc\0", r"a\r\nb\tc\u{0}"),
            ("\u{1b}[31mred\u{7f}", r"\u{1b}[31mred\u{7f}"),
            ("\u{9b}31m\u{85}", r"\u{9b}31m\u{85}"),
            (
                "\u{202e}txt\u{2066}\u{2069}\u{200f}\u{61c}",
                r"\u{202e}txt\u{2066}\u{2069}\u{200f}\u{61c}",
            ),
            ("\u{2028}\u{2029}", r"\u{2028}\u{2029}"),
            // Emoji are joined by an invisible character that does no harm.
            ("👩\u{200d}💻", "👩\u{200d}💻"),
        ] {
            assert_eq!(printable(text.to_owned(), 100), shown);
        }
    }

    fn shown(text: &str, most: usize) -> String {
        printable(text.to_owned(), most)
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_escapes() {
        assert_eq!(shown("提提提", 3), "提提提");
        assert_eq!(shown("提提提提", 3), "提提提…");
        assert_eq!(shown("ab\u{1b}", 8), r"ab\u{1b}");
        assert_eq!(shown("ab\u{1b}", 7), "ab…");
        assert_eq!(shown("abc", 0), "…");
    }

    #[test]
    fn a_secret_is_masked_before_it_is_cut() {
        let mask = |text: &mut String| *text = text.replace("t-secret", "[secret]");
        assert_eq!(admit("0123 t-secret", &mask, 9), "0123 [sec…");
        assert_eq!(admit("0123 \u{7}t-secret", &mask, 100), r"0123 \u{7}[secret]");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_becomes_short_and_printable_once(text in any::<Vec<char>>(), most in 0_usize..100) {
            let text: String = text.into_iter().collect();
            let once = printable(text, most);
            prop_assert!(!once.contains(must_be_escaped), "{once:?}");
            prop_assert!(once.chars().count() <= most + 1);
            prop_assert_eq!(printable(once.clone(), most), once);
        }
    }
}
