//! What must not be found anywhere: the real secret in every form that the demo's tools give it, and parts of it; and the
//! planted ones. Found by plain search, not by the scanner that is under test.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use std::fmt::Write;

/// Characters of a secret that show enough of it.
const PART: usize = 12;

/// Texts to look for, in lower case.
pub struct Needles(Vec<String>);

impl Needles {
    /// All forms of `secret` and its parts, and `planted` as they are.
    pub fn new(secret: &str, planted: impl IntoIterator<Item = String>) -> Self {
        let bytes = secret.as_bytes();
        let mut forms: Vec<String> = vec![hex::encode(bytes), percent(bytes)];
        for at in (0..secret.len().saturating_sub(PART - 1)).step_by(PART / 2) {
            forms.extend(secret.get(at..at + PART).map(str::to_owned));
        }
        // Base64 looks different at each of three offsets; what hangs on neighbours is cut off.
        for skip in 0..3 {
            let rest = bytes.get(skip..).unwrap_or_default();
            let whole = rest.get(..rest.len() / 3 * 3).unwrap_or_default();
            forms.extend([STANDARD_NO_PAD.encode(whole), URL_SAFE_NO_PAD.encode(whole)]);
        }
        forms.extend(planted);
        let mut forms: Vec<String> =
            forms.iter().filter(|form| form.len() >= PART).map(|form| form.to_lowercase()).collect();
        forms.sort_unstable();
        forms.dedup();
        Self(forms)
    }

    /// Whether a text holds one of them.
    pub fn are_in(&self, text: &str) -> bool {
        let folded = text.to_lowercase();
        self.0.iter().any(|needle| folded.contains(needle))
    }
}

/// Every byte as `%xx`.
fn percent(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "%{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_encoding_at_every_offset_and_in_part() {
        let secret = "crm_0123456789abcdef0123456789abcdef";
        let needles = Needles::new(secret, ["planted-one-here".to_owned()]);
        let encode = |text: String| STANDARD_NO_PAD.encode(text);
        for text in [
            format!("the token is {secret}."),
            secret.to_uppercase(),
            encode(secret.to_owned()),
            encode(format!("x{secret}y")),
            encode(format!("xy{secret}")),
            URL_SAFE_NO_PAD.encode(secret),
            hex::encode_upper(secret),
            percent(secret.as_bytes()),
            "…6789abcdef0123456789…".to_owned(),
            "a planted-one-here".to_owned(),
        ] {
            assert!(needles.are_in(&text), "{text}");
        }
        assert!(!needles.are_in("the token is [redacted:demo_crm_token], crm_0123"));
    }
}
