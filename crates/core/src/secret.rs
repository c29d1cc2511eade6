//! Secrets: kept where `Debug` does not reach, zeroed on drop, and masked in texts from outside.

use bytes::Bytes;
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// Shorter secrets would mask ordinary words; the platform's own have 32 characters and more.
const LEAST_MASKED: usize = 4;

/// Takes the secrets out of a text that came from outside.
pub(crate) type Mask<'a> = &'a (dyn Fn(&mut String) + Sync);

/// Replaces a secret wherever a text repeats it, as it is or as JSON has it.
pub(crate) fn mask(text: &mut String, secret: &SecretString) {
    let secret = secret.expose_secret();
    if secret.len() < LEAST_MASKED || text.len() < secret.len() {
        return;
    }
    if text.contains(secret) {
        *text = text.replace(secret, MASK);
    }
    // Each of these forms has one, and few texts do.
    if text.contains('\\') && secret.contains(['"', '\\', '/']) {
        let escaped = secret.replace('\\', r"\\").replace('"', r#"\""#);
        for form in [escaped.replace('/', r"\/"), escaped] {
            *text = text.replace(&form, MASK);
        }
    }
}

const MASK: &str = "[secret]";

/// Masks what follows `Basic `: a proxy may say back its own credentials, and where the environment names the
/// proxy only the HTTP library has them.
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
        // The word may also stand in a sentence.
        if length >= LEAST_BASIC {
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

/// Base64 of a name, a colon and a password is longer than most words.
const LEAST_BASIC: usize = 8;

/// `Bearer <token>` as a header whose bytes are zeroed when the last request that uses it is gone.
/// `None` where the token cannot stand in a header.
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
    fn what_a_proxy_says_back_is_masked() {
        for (said, shown) in [
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
            let mut text = said.to_owned();
            mask_basic(&mut text);
            assert_eq!(text, shown);
        }
    }
}
