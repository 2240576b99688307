//! Passwords that are guessed first.

use std::collections::HashSet;
use std::sync::LazyLock;

/// The 10,000 commonest, in lower case; where they come from stands in the file beside it.
static COMMON: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| include_str!("../../../data/common-passwords.txt").lines().collect());
/// Fewest different characters.
const MIN_DISTINCT: usize = 5;

/// Whether a password, in lower case, is one of the commonest, two of them side by side, or made of hardly any characters. The
/// commonest alone are mostly shorter than a password may be.
pub(super) fn is_easy(lower: &str) -> bool {
    let distinct: HashSet<char> = lower.chars().collect();
    let is_pair = |(at, _): (usize, char)| {
        lower.split_at_checked(at).is_some_and(|(a, b)| COMMON.contains(a) && COMMON.contains(b))
    };
    distinct.len() < MIN_DISTINCT || COMMON.contains(lower) || lower.char_indices().any(is_pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_93_the_commonest_passwords_are_easy_alone_and_in_pairs() {
        assert_eq!(COMMON.len(), 10_000);
        for easy in ["leavemealone", "sonyericsson", "password1234", "dragondragon", "aaaabbbbaaaab"] {
            assert!(is_easy(easy), "{easy}");
        }
        for fine in ["ein l\u{e4}ngeres wort", "purple-otter-sings", "dragon1 dragon2x"] {
            assert!(!is_easy(fine), "{fine}");
        }
    }
}
