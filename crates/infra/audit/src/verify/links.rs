//! Which keys may sign the checkpoints of a stream. A rotation leaves a record that names the old key and the new one
//! (`system.ledger_key`); a checkpoint over that record hands the trust on, in either direction: who trusts the old key comes to
//! the new one by the old one's signature, who trusts the new one comes to the old one by the new one's.

use crate::note::{Note, NoteError, VerifierKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// Kind of the record that names both keys.
pub(crate) const LINK: &str = "system.ledger_key";
/// Rotations of one stream that are followed; keys behind more are not trusted.
const MAX_LINKS: usize = 1024;

/// A rotation as its record tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    seq: u64,
    old: [u8; 32],
    new: [u8; 32],
}

/// A key that is known and not trusted yet signed a checkpoint of this size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Doubt {
    pub(super) key: VerifierKey,
    pub(super) size: u64,
}

/// The keys of one stream.
#[derive(Clone, Debug)]
pub(super) struct KeyChain {
    origin: String,
    /// From outside, or reached by a link.
    trusted: Vec<VerifierKey>,
    /// Named by what is verified itself.
    known: Vec<VerifierKey>,
    links: Vec<Link>,
    doubts: Vec<Doubt>,
    is_anchored: bool,
}

impl KeyChain {
    /// Trusts `given`, as far as it names this origin; without any such key what `known` names counts, and nothing is trusted.
    pub(super) fn new(origin: &str, given: &[VerifierKey], known: &[VerifierKey]) -> Self {
        let named = |keys: &[VerifierKey]| -> Vec<VerifierKey> {
            keys.iter().filter(|key| key.name() == origin).cloned().collect()
        };
        let trusted = named(given);
        Self {
            origin: origin.to_owned(),
            is_anchored: !trusted.is_empty(),
            trusted,
            known: named(known),
            links: Vec::new(),
            doubts: Vec::new(),
        }
    }

    /// Whether a key from outside names this origin.
    pub(super) fn is_anchored(&self) -> bool {
        self.is_anchored
    }

    /// Takes in a record of the kind [`LINK`]. It counts once a trusted checkpoint stands over it.
    pub(super) fn link(&mut self, seq: u64, detail: Option<&Value>) {
        let key = |name: &str| -> Option<[u8; 32]> {
            let text = detail?.get(name)?.as_str()?;
            STANDARD.decode(text).ok()?.try_into().ok()
        };
        if let (Some(old), Some(new)) = (key("old_key"), key("new_key"))
            && self.links.len() < MAX_LINKS
        {
            self.links.push(Link { seq, old, new });
        }
    }

    /// Who signed a checkpoint of `size`.
    ///
    /// # Errors
    /// No key that may, or a wrong signature.
    pub(super) fn verify(&mut self, note: &Note, size: u64) -> Result<VerifierKey, NoteError> {
        if !self.is_anchored {
            return note.verify(&self.known).cloned();
        }
        match note.verify(&self.trusted) {
            Ok(key) => {
                let key = key.clone();
                self.vouch(&key, size);
                Ok(key)
            }
            Err(NoteError::Unsigned) => {
                let key = note.verify(&self.known)?.clone();
                // One doubt a key: the newest covers the older.
                self.doubts.retain(|doubt| doubt.key != key);
                self.doubts.push(Doubt { key: key.clone(), size });
                Ok(key)
            }
            Err(error) => Err(error),
        }
    }

    /// What a trusted checkpoint of `size` says of other keys: its signer hands on what it was replaced by, and stands for all
    /// that it replaced, none of which may sign any more.
    fn vouch(&mut self, key: &VerifierKey, size: u64) {
        let covered: Vec<Link> = self.links.iter().filter(|link| link.seq <= size).copied().collect();
        for link in covered.iter().filter(|link| link.old == *key.public()) {
            let next = VerifierKey::new(&self.origin, link.new);
            if !self.trusted.contains(&next) {
                self.trusted.push(next);
            }
        }
        let mut stands_for = vec![*key.public()];
        for link in covered.iter().rev() {
            if stands_for.contains(&link.new) && !stands_for.contains(&link.old) {
                stands_for.push(link.old);
            }
        }
        let is_replaced =
            |other: &VerifierKey| stands_for.iter().skip(1).any(|public| public == other.public());
        self.trusted.retain(|other| !is_replaced(other));
        self.doubts.retain(|doubt| !is_replaced(&doubt.key));
        self.known.retain(|other| !is_replaced(other));
    }

    /// Keys that signed and were never vouched for.
    pub(super) fn doubts(&self) -> &[Doubt] {
        &self.doubts
    }

    /// The keys that are trusted now.
    pub(super) fn trusted(&self) -> &[VerifierKey] {
        &self.trusted
    }

    /// Lets a record of a rotation count that a trusted checkpoint of `size` was shown to hold.
    pub(super) fn proven(&mut self, seq: u64, detail: Option<&Value>, key: &VerifierKey, size: u64) {
        self.link(seq, detail);
        self.links.sort_by_key(|link| link.seq);
        self.vouch(key, size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::{Checkpoint, SigningKey};
    use aws_lc_rs::signature::Ed25519KeyPair;
    use serde_json::json;

    const ORIGIN: &str = "example.com/ledger/n-1";

    fn key() -> SigningKey {
        SigningKey::new(Ed25519KeyPair::generate().unwrap())
    }

    fn note(key: &SigningKey, size: u64) -> Note {
        let checkpoint = Checkpoint { origin: ORIGIN.into(), size, root: [7; 32] };
        key.sign(&checkpoint).parse().unwrap()
    }

    fn detail(old: &SigningKey, new: &SigningKey) -> Value {
        json!({"old_key": STANDARD.encode(old.public()), "new_key": STANDARD.encode(new.public())})
    }

    fn chain(given: &[&SigningKey], known: &[&SigningKey]) -> KeyChain {
        let keys = |keys: &[&SigningKey]| keys.iter().map(|key| key.vkey(ORIGIN)).collect::<Vec<_>>();
        KeyChain::new(ORIGIN, &keys(given), &keys(known))
    }

    #[test]
    fn the_old_key_hands_trust_on_and_is_retired() {
        let (old, new) = (key(), key());
        let mut chain = chain(&[&old], &[&old, &new]);
        chain.verify(&note(&old, 5), 5).unwrap();
        chain.link(6, Some(&detail(&old, &new)));
        chain.verify(&note(&old, 6), 6).unwrap();
        chain.verify(&note(&new, 8), 8).unwrap();
        assert_eq!(chain.doubts(), []);
        assert_eq!(chain.verify(&note(&old, 9), 9), Err(NoteError::Unsigned));
    }

    #[test]
    fn the_new_key_stands_for_those_before_it() {
        let [first, second, third] = [key(), key(), key()];
        let mut chain = chain(&[&third], &[&first, &second, &third]);
        chain.verify(&note(&first, 5), 5).unwrap();
        chain.link(6, Some(&detail(&first, &second)));
        chain.verify(&note(&second, 8), 8).unwrap();
        chain.link(9, Some(&detail(&second, &third)));
        assert_eq!(chain.doubts().len(), 2);
        chain.verify(&note(&third, 10), 10).unwrap();
        assert_eq!(chain.doubts(), []);
    }

    #[test]
    fn a_link_that_no_trusted_checkpoint_holds_counts_for_nothing() {
        let (trusted, evil) = (key(), key());
        let mut chain = chain(&[&trusted], &[&trusted, &evil]);
        chain.link(6, Some(&detail(&trusted, &evil)));
        chain.verify(&note(&evil, 8), 8).unwrap();
        assert_eq!(chain.doubts().first().map(|doubt| doubt.size), Some(8));
        // A checkpoint before the record does not hold it.
        chain.verify(&note(&trusted, 5), 5).unwrap();
        assert_eq!(chain.doubts().len(), 1);
    }

    #[test]
    fn without_a_key_from_outside_nothing_is_anchored() {
        let (own, other) = (key(), key());
        let mut chain = chain(&[], &[&own]);
        assert!(chain.verify(&note(&own, 3), 3).is_ok() && !chain.is_anchored());
        assert!(chain.verify(&note(&other, 3), 3).is_err());
    }
}
