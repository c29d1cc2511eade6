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
    if secret.len() < LEAST_MASKED {
        return;
    }
    if text.contains(secret) {
        *text = text.replace(secret, MASK);
    }
    if secret.contains(['"', '\\', '/']) {
        let escaped = secret.replace('\\', r"\\").replace('"', r#"\""#);
        for form in [escaped.replace('/', r"\/"), escaped] {
            *text = text.replace(&form, MASK);
        }
    }
}

const MASK: &str = "[secret]";

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
