//! Opaque secrets: 32 random bytes in base64url behind a prefix that says what they are. Codes, refresh tokens, client secrets,
//! set-up tokens and the like; what is stored of them is a keyed digest.

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use systemprompt_models::Secret;
use zeroize::Zeroizing;

/// Length of the random part, in characters.
pub const OPAQUE_LENGTH: usize = 43;

/// The system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct NoRandomness;

/// A new secret that begins with `prefix`.
///
/// # Errors
/// When the system gives no random bytes.
pub fn generate(prefix: &str) -> Result<Secret<String>, NoRandomness> {
    let mut random = Zeroizing::new([0; 32]);
    fill(random.as_mut_slice())?;
    Ok(Secret::new(encode(prefix, random.as_slice())))
}

/// Random bytes.
///
/// # Errors
/// When the system gives none.
pub fn fill(bytes: &mut [u8]) -> Result<(), NoRandomness> {
    SystemRandom::new().fill(bytes).map_err(|_| NoRandomness)
}

/// `bytes` in base64url without padding, behind `prefix`.
pub fn encode(prefix: &str, bytes: &[u8]) -> String {
    let mut text = String::with_capacity(prefix.len() + bytes.len().div_ceil(3) * 4);
    text.push_str(prefix);
    URL_SAFE_NO_PAD.encode_string(bytes, &mut text);
    text
}

/// Whether `text` has the form of what [`generate`] makes with `prefix`.
pub fn has_form(prefix: &str, text: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|rest| {
        rest.len() == OPAQUE_LENGTH
            && rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_have_their_form() {
        let (a, b) = (generate("rt_").unwrap(), generate("rt_").unwrap());
        assert!(a.expose() != b.expose());
        assert!(has_form("rt_", a.expose()) && !has_form("ac_", a.expose()));
        assert!(!has_form("rt_", &format!("{}=", a.expose())));
    }
}
