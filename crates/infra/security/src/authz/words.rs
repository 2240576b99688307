//! Words that somebody else gave for a decision, made fit to be told and recorded: without secrets, without characters that cannot
//! be seen or turn the text around, without mark-up, and short.

use crate::governance::SecretScanner;
use crate::redaction::Redactor;
use std::sync::Arc;
use systemprompt_leak::Scanner;

/// Longest text that is told on, in characters.
const MAX_TEXT: usize = 200;

/// Cleans texts. Clones share everything.
#[derive(Clone)]
pub struct Words {
    redactor: Redactor,
    in_use: Scanner,
}

impl Words {
    /// By the secret rules of `scanner` and the values `in_use`.
    pub fn new(scanner: Arc<SecretScanner>, in_use: Scanner) -> Self {
        Self { redactor: Redactor::new(scanner), in_use }
    }

    /// The text as it may be told.
    pub fn clean(&self, text: &str) -> String {
        // Twice: what is taken out in between may have parted a secret, or kept it apart from its neighbours.
        let visible: String = self.redact(text).chars().filter(|c| is_visible(*c)).collect();
        let plain = self.redact(&visible).replace(['<', '>'], " ");
        plain.trim().chars().take(MAX_TEXT).collect()
    }

    fn redact(&self, text: &str) -> String {
        let text = self.in_use.redact_text(text).map_or_else(|| text.to_owned(), |(clean, _)| clean);
        self.redactor.text(&text).into_owned()
    }
}

/// Whether a reader sees the character: no control, no direction mark, nothing of zero width, no tag, nothing private.
fn is_visible(c: char) -> bool {
    !c.is_control()
        && !matches!(
            u32::from(c),
            0xAD | 0x34F | 0x61C | 0x115F | 0x1160 | 0x17B4 | 0x17B5 | 0x180B..=0x180F | 0x200B..=0x200F
                | 0x2028..=0x202E | 0x2060..=0x206F | 0x3164 | 0xE000..=0xF8FF | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0
                | 0xFFF0..=0xFFFB | 0xE0000..=0x10_FFFF
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use systemprompt_models::Secret;

    #[test]
    fn words_are_told_without_secrets_marks_and_mark_up() {
        let in_use = Scanner::new();
        let value = Secret::new("crm_0f3a9c51d27be846".to_owned());
        let _hold = in_use.hold("crm_token", &value).unwrap();
        let words = Words::new(Arc::new(SecretScanner::builtin().unwrap()), in_use);
        let key = format!("{}{}", "ghp_", "q7Rk2mXw9TzB4nLc8VdY1sHf6JpGe3Ua5oKi");
        for text in [
            format!("use {key}"),
            format!("use gh\u{200b}{}", key.trim_start_matches("gh")),
            format!("use\n{}", value.expose()),
        ] {
            let told = words.clean(&text);
            let hidden = !told.contains(&key) && !told.contains(value.expose().as_str());
            assert!(hidden && told.starts_with("use"), "{told}");
        }
        assert_eq!(words.clean(" no\u{202e}, \u{1b}<script>ü\u{e0041} "), "no,  script ü");
        assert_eq!(words.clean(&"x".repeat(5000)).len(), 200);
    }
}
