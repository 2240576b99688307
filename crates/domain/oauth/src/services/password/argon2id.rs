//! Argon2id (RFC 9106): hashes are kept as PHC strings, with the cost that OWASP's cheat sheet names first.

use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Memory in KiB, passes, lanes.
const COST: (u32, u32, u32) = (19_456, 2, 1);
/// Highest memory in KiB and passes of a hash that is imported.
const MAX_IMPORTED: (u32, u32) = (262_144, 16);

/// Memory of hashes that are done, for those that wait: to give 19 MiB back and get them again costs a third of a hash. What it was
/// filled with was made of passwords; the next hash writes over all of it, and it goes when nobody waits.
static MEMORY: Mutex<Vec<Vec<Block>>> = Mutex::new(Vec::new());

/// Gives the memory back that nobody waits for.
pub(super) fn forget_memory() {
    memory().clear();
}

fn memory() -> MutexGuard<'static, Vec<Vec<Block>>> {
    MEMORY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A PHC string of the present cost.
pub(super) fn hash(password: &str, salt: &[u8]) -> Option<String> {
    let params = Params::new(COST.0, COST.1, COST.2, None).ok()?;
    let output = derive(Algorithm::Argon2id, Version::V0x13, &params, password, salt)?;
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: (&params).try_into().ok()?,
        salt: Some(Salt::new(salt).ok()?),
        hash: Some(output),
    };
    Some(hash.to_string())
}

/// Whether this is the password of a PHC string, of any cost.
pub(super) fn verify(password: &str, text: &str) -> bool {
    let verified = || {
        let hash = PasswordHash::new(text).ok()?;
        let algorithm = Algorithm::try_from(hash.algorithm.as_str()).ok()?;
        let version = hash.version.map_or(Ok(Version::default()), Version::try_from).ok()?;
        let params = Params::try_from(&hash).ok()?;
        let output = derive(algorithm, version, &params, password, &hash.salt?)?;
        // The comparison takes the same time whatever differs.
        Some(output == hash.hash?)
    };
    verified().unwrap_or_default()
}

/// Whether a hash costs as much as one that is made now: as much memory, which is what hardware cannot save, and as much work.
pub(super) fn is_present(text: &str) -> bool {
    let work = |params: &Params| u64::from(params.m_cost()) * u64::from(params.t_cost());
    PasswordHash::new(text).is_ok_and(|hash| {
        hash.algorithm == Algorithm::Argon2id.ident()
            && Params::try_from(&hash).is_ok_and(|params| {
                params.m_cost() >= COST.0 && work(&params) >= u64::from(COST.0) * u64::from(COST.1)
            })
    })
}

/// Whether a text is a hash that can be verified at a bearable cost.
pub(super) fn is_bearable(text: &str) -> bool {
    PasswordHash::new(text).is_ok_and(|hash| {
        hash.algorithm.as_str() == "argon2id"
            && hash.hash.is_some()
            && Params::try_from(&hash)
                .is_ok_and(|params| params.m_cost() <= MAX_IMPORTED.0 && params.t_cost() <= MAX_IMPORTED.1)
    })
}

fn derive(
    algorithm: Algorithm,
    version: Version,
    params: &Params,
    password: &str,
    salt: &[u8],
) -> Option<Output> {
    // Other lanes make another number of blocks of the same memory.
    let is_present = (params.m_cost(), params.p_cost()) == (COST.0, COST.2);
    let kept = is_present.then(|| memory().pop()).flatten();
    let mut blocks = kept.unwrap_or_else(|| vec![Block::default(); params.block_count()]);
    let context = Argon2::new(algorithm, version, params.clone());
    let mut out = [0; Output::MAX_LENGTH];
    let out = out.get_mut(..params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN))?;
    let done = context.hash_password_into_with_memory(password.as_bytes(), salt, out, &mut blocks);
    if is_present {
        memory().push(blocks);
    }
    done.ok()?;
    Output::new(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};

    const COST_OF_NOW: (u32, u32) = (COST.0, COST.1);

    #[test]
    fn hashes_are_those_of_the_library_in_new_memory_and_in_used() {
        for password in ["one", "two"] {
            let text = hash(password, &[7; 16]).unwrap();
            let known = PasswordHash::new(&text).unwrap();
            Argon2::default().verify_password(password.as_bytes(), &known).unwrap();
            assert!(verify(password, &text) && !verify("three", &text));
        }
    }

    #[test]
    fn hashes_of_another_cost_are_verified_by_it() {
        let params = Params::new(64, 3, 2, Some(24)).unwrap();
        let other = Argon2::new(Algorithm::Argon2i, Version::V0x10, params);
        let text = other.hash_password_with_salt(b"one", &[9; 16]).unwrap().to_string();
        assert!(verify("one", &text) && !verify("two", &text), "{text}");
        assert!(!verify("one", "$argon2id$v=19$m=64,t=3,p=2"), "no hash");
        let same_memory =
            Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(COST.0, 3, 3, None).unwrap());
        let text = same_memory.hash_password_with_salt(b"one", &[9; 16]).unwrap().to_string();
        // Its memory has fewer blocks, and is not handed to those that need more.
        assert!(verify("one", &text) && is_present(&text) && hash("one", &[7; 16]).is_some());
    }

    #[test]
    fn id_93_a_hash_of_less_memory_is_made_anew_however_many_passes_it_has() {
        for ((memory, passes), want) in [
            (COST_OF_NOW, true),
            ((COST.0, COST.1 + 1), true),
            ((COST.0 * 2, 1), true),
            ((COST.0, 1), false),
            ((COST.0 / 8, 16), false),
        ] {
            let text = format!("$argon2id$v=19$m={memory},t={passes},p=1$BwcHBwcHBwc$BwcHBwcHBwcHBwcHBwcHBw");
            assert_eq!(is_present(&text), want, "{text}");
        }
    }
}
