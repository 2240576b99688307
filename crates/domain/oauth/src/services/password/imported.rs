//! Hashes of other systems: bcrypt, verified until its person signs in the first time.

/// More bytes bcrypt does not look at; a longer password is none of its own.
const MAX_BYTES: usize = 72;
/// Costs that are accepted; each one more doubles the time.
const COSTS: std::ops::RangeInclusive<u32> = 4..=14;
/// `$2b$`, cost, `$`, 22 characters of salt and 31 of hash.
const LENGTH: usize = 60;

pub(super) fn is_bcrypt(hash: &str) -> bool {
    ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| hash.starts_with(prefix))
}

/// Whether a bcrypt hash is whole and of a cost that is accepted.
pub(super) fn is_bearable(hash: &str) -> bool {
    let cost = hash.get(4..6).and_then(|text| text.parse().ok());
    let alphabet = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'/');
    hash.len() == LENGTH
        && hash.as_bytes().get(6) == Some(&b'$')
        && cost.is_some_and(|cost| COSTS.contains(&cost))
        && hash.bytes().skip(7).all(alphabet)
}

pub(super) fn verify(password: &str, hash: &str) -> bool {
    password.len() <= MAX_BYTES && is_bearable(hash) && bcrypt::verify(password, hash).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of the Openwall crypt_blowfish test set (public domain).
    #[test]
    fn id_93_bcrypt_hashes_of_other_systems_are_verified() {
        for (hash, password, right) in [
            ("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U", true),
            ("$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK", "U*U*", true),
            ("$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U", true),
            ("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*V", false),
        ] {
            assert!(is_bcrypt(hash) && is_bearable(hash), "{hash}");
            assert_eq!(verify(password, hash), right, "{hash} {password}");
        }
    }

    #[test]
    fn a_hash_that_is_cut_or_costs_too_much_is_none() {
        let hash = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
        for (from, to) in
            [("$05$", "$15$"), ("$05$", "$03$"), ("$05$", "$5$$"), ("OeW", "Oe"), ("CC.E5", "CC E5")]
        {
            assert!(!is_bearable(&hash.replace(from, to)), "{to}");
        }
        let long = "x".repeat(73);
        assert!(!verify(&long, hash));
    }
}
