//! Secrets: hidden from `Debug`, zeroed on drop, and masked in texts from outside.

use bytes::Bytes;
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// Shortest secret that is masked, in bytes. Masking a shorter one would hide ordinary words. The platform's secrets
/// have at least 32 characters.
const MIN_MASKED: usize = 4;

/// Masks the known secrets in a text from outside.
pub(crate) type Mask<'a> = &'a (dyn Fn(&mut String) + Sync);

/// Masks every occurrence of a secret in a text, verbatim or escaped as in JSON.
pub(crate) fn mask(text: &mut String, secret: &SecretString) {
    let secret = secret.expose_secret();
    if secret.len() < MIN_MASKED || text.len() < secret.len() {
        return;
    }
    if text.contains(secret) {
        *text = text.replace(secret, MASK);
    }
    // Every escaped form has a backslash, and few texts do.
    if text.contains('\\') && secret.contains(['"', '\\', '/']) {
        let escaped = secret.replace('\\', r"\\").replace('"', r#"\""#);
        for form in [escaped.replace('/', r"\/"), escaped] {
            *text = text.replace(&form, MASK);
        }
    }
}

const MASK: &str = "[secret]";

/// Returns what is wrong with a token from an option or a provider, or `None`. Its form is not checked otherwise
/// (docs/platform.md#token-form).
pub(crate) fn token_fault(token: &SecretString) -> Option<&'static str> {
    const SCHEME: &str = "bearer ";
    let token = token.expose_secret();
    if token.trim().is_empty() {
        return Some("is empty");
    }
    if token.trim() != token {
        return Some("begins or ends with whitespace");
    }
    let start = token.get(..SCHEME.len())?;
    start
        .eq_ignore_ascii_case(SCHEME)
        .then_some("begins with `Bearer`, which is not part of the token")
}

/// Masks the credentials after `Basic `, because a proxy may repeat those that it received.
pub(crate) fn mask_basic(text: &mut String) {
    const SCHEME: &str = "basic ";
    if !text.contains(' ') {
        return;
    }
    let mut masked = String::new();
    let mut kept = 0;
    for (place, _) in text.to_ascii_lowercase().match_indices(SCHEME) {
        let start = place + SCHEME.len();
        let credentials = text[start..]
            .bytes()
            .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'\\'));
        let length = credentials.count();
        // A shorter text is an ordinary word of a sentence.
        if length >= MIN_BASIC {
            masked.push_str(&text[kept..start]);
            masked.push_str(MASK);
            kept = start + length;
        }
    }
    if kept > 0 {
        masked.push_str(&text[kept..]);
        *text = masked;
    }
}

/// Masks words that may be tokens: long ones with a digit, or with letters of both cases. An error of a token endpoint
/// may contain a token that the client does not know yet, and the platform does not specify the form of tokens
/// (docs/platform.md#token-form).
pub(crate) fn mask_token_like(text: &mut String) {
    let may_be_in_token = |character: char| {
        character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.' | '~' | '+' | '/' | '=')
    };
    let may_be_token = |word: &str| {
        let has = |kind: fn(&u8) -> bool| word.as_bytes().iter().any(kind);
        word.len() >= MIN_TOKEN
            && (has(u8::is_ascii_digit) || has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase))
    };
    let mut masked = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(start) = rest.find(may_be_in_token) {
        let (before, word) = rest.split_at(start);
        let end = word.find(|letter| !may_be_in_token(letter)).unwrap_or(word.len());
        masked.push_str(before);
        masked.push_str(if may_be_token(&word[..end]) {
            MASK
        } else {
            &word[..end]
        });
        rest = &word[end..];
    }
    masked.push_str(rest);
    *text = masked;
}

/// Shortest word that may be a token, in bytes. The platform's tokens have at least 24 characters.
const MIN_TOKEN: usize = 16;

/// Shortest text after `Basic ` that is masked: base64 of a name, a colon and a password is longer than most words.
const MIN_BASIC: usize = 8;

/// `Bearer <token>` as a header whose bytes are zeroed when the last request that uses it is dropped. `None` if a
/// header cannot carry the token.
pub(crate) fn bearer(token: &SecretString) -> Option<HeaderValue> {
    let token = token.expose_secret();
    let mut bytes = Zeroizing::new(Vec::with_capacity("Bearer ".len() + token.len()));
    bytes.extend_from_slice(b"Bearer ");
    bytes.extend_from_slice(token.as_bytes());
    if !bytes.iter().all(|byte| matches!(byte, 0x20..=0x7e)) {
        return None;
    }
    let mut header = HeaderValue::from_maybe_shared(Bytes::from_owner(bytes)).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_tokens_are_recognised() {
        let why = |token: &str| token_fault(&SecretString::from(token));
        for (token, fault) in [
            ("t-7f1bcd13", None),
            ("", Some("is empty")),
            (" \n", Some("is empty")),
            (" t-7f1bcd13", Some("begins or ends with whitespace")),
            ("t-7f1bcd13\n", Some("begins or ends with whitespace")),
        ] {
            assert_eq!(why(token), fault, "{token:?}");
        }
        assert!(
            why("bearer t-7f1bcd13")
                .unwrap()
                .starts_with("begins with `Bearer`")
        );
    }

    #[test]
    fn words_that_may_be_tokens_are_masked() {
        for (text, masked) in [
            ("app secret invalid", "app secret invalid"),
            (
                "tenant_access_token is missing: application/json",
                "tenant_access_token is missing: application/json",
            ),
            ("t-7f1bcd13fc57d46bac21793a18e560", "[secret]"),
            (
                "got \"a-6U1SbDiM6XIH2DcTCPyeub\", thanks",
                "got \"[secret]\", thanks",
            ),
            ("提eyJhbGciOi.eyJzdWIiOi.c2ln-bmF0_dXJl=提", "提[secret]提"),
            ("NoDigitsButBothCases", "[secret]"),
            ("", ""),
        ] {
            let mut text = text.to_owned();
            mask_token_like(&mut text);
            assert_eq!(text, masked);
        }
    }

    #[test]
    fn basic_credentials_are_masked() {
        for (text, masked) in [
            (
                "Proxy-Authorization: Basic bWU6aHVudGVyMjI=",
                "Proxy-Authorization: Basic [secret]",
            ),
            (
                "basic bWU6aHVudGVyMjI=, BASIC bWU6aHVudGVyMjI=.",
                "basic [secret], BASIC [secret].",
            ),
            (r#"{"h":"Basic bWU6\/HVudGVyMjI="}"#, r#"{"h":"Basic [secret]"}"#),
            ("a basic rule, basic ", "a basic rule, basic "),
            ("basic aaaabasic bbbbbbbb basic", "basic [secret] [secret] basic"),
            ("\u{130}basic bWU6aHVudGVyMjI=", "\u{130}basic [secret]"),
        ] {
            let mut text = text.to_owned();
            mask_basic(&mut text);
            assert_eq!(text, masked);
        }
    }
}
