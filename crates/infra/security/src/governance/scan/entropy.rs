//! Entropy of a run of characters, and the generic rule made of it: it flags what looks random, it never blocks.

use super::decode::is_base64;

/// Id of the generic rule.
pub(super) const GENERIC: &str = "generic-high-entropy";
/// Length of a run that the generic rule looks at.
pub(super) const GENERIC_LEN: std::ops::RangeInclusive<usize> = 32..=128;
/// Least part of the highest possible entropy.
const RATIO: f64 = 0.80;

/// Shannon entropy, in bits a byte.
pub(super) fn bits(text: &[u8]) -> f64 {
    let mut counts = [0u32; 256];
    for byte in text {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let total = text.len() as f64;
    counts.iter().filter(|c| **c > 0).map(|c| f64::from(*c) / total).map(|p| -p * p.log2()).sum()
}

/// Whether a whole run looks like a random token: upper case, lower case and digits mixed, no word in it, entropy at
/// least 80 % of what its length allows.
pub(super) fn looks_random(run: &[u8]) -> bool {
    GENERIC_LEN.contains(&run.len())
        && run.iter().any(u8::is_ascii_digit)
        && run.iter().any(u8::is_ascii_uppercase)
        && run.iter().any(u8::is_ascii_lowercase)
        && !has_word(run)
        && run.iter().all(|b| is_base64(*b))
        && bits(run) >= RATIO * (run.len().min(64) as f64).log2()
}

/// Seven letters of one case in a row: random text has them seldom, names have them often.
fn has_word(run: &[u8]) -> bool {
    let mut lower = 0;
    let mut upper = 0;
    run.iter().any(|byte| {
        lower = if byte.is_ascii_lowercase() { lower + 1 } else { 0 };
        upper = if byte.is_ascii_uppercase() { upper + 1 } else { 0 };
        lower >= 7 || upper >= 7
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_tokens_are_told_from_names_digests_and_ids() {
        for (run, want) in [
            ("9uI2nicgdMBN7DB9NtLE7rT++Df85E4OO8vyfLmF", true),
            ("Zx8Qm2Lp0Vt7Rb4Ny6Kc1Hd9Jg3Fs5Aw8Eu2Io0", true),
            ("3f786850e387550fdab836ed7e6dc881de23001b", false),
            ("018f3c2e-7d4b-7c1a-9a55-2f6f0e1b8c77", false),
            ("/usr/local/lib/Python3/dist-packages/Foo2", false),
            ("AbstractSingletonProxyFactoryBean2Configuration", false),
            ("aB1aB1aB1aB1aB1aB1aB1aB1aB1aB1aB1aB1", false),
            ("Zx8Qm2Lp0Vt7Rb4Ny6Kc1Hd9Jg3", false),
        ] {
            assert_eq!(looks_random(run.as_bytes()), want, "{run}");
        }
    }

    #[test]
    fn entropy_counts_bits_a_byte() {
        assert!(bits(b"aaaa").abs() < 1e-9);
        assert!((bits(b"abcd") - 2.0).abs() < 1e-9);
    }
}
