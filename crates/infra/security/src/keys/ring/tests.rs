use super::*;
use crate::session::TokensExtension;
use systemprompt_database::testing::{TestDb, databases};
use systemprompt_extension::Extension as _;
use systemprompt_models::{ManualClock, SystemClock};

async fn engines() -> [TestDb; 2] {
    let mut migrations = systemprompt_audit::testing::migrations();
    migrations.extend(TokensExtension.migrations());
    databases(&migrations).await
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_run_makes_rs256_and_the_chosen_algorithm_once() {
    for db in engines().await {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ring.json");
        let ledger = systemprompt_audit::testing::ledger(&db, &[]).await;
        let ring = KeyRing::open(db.clone(), path.clone(), clock()).await.unwrap();
        assert!(ring.list().is_empty());

        ring.ensure(SigningAlgorithm::Es256, &ledger).await.unwrap();
        ring.ensure(SigningAlgorithm::Es256, &ledger).await.unwrap();
        let mut made: Vec<_> = ring.list().iter().map(|key| (key.alg, key.key_use, key.state)).collect();
        made.sort_by_key(|(alg, ..)| *alg);
        let wanted = [("ES256", KeyUse::Sig), ("EdDSA", KeyUse::Internal), ("RS256", KeyUse::Sig)];
        assert_eq!(made, wanted.map(|(alg, key_use)| (alg, key_use, KeyState::Active)));
        // The internal key is never published, and signs no tokens.
        assert_eq!(ring.jwks()["keys"].as_array().unwrap().len(), 2);
        assert!(ring.keys().load().signer(SigningAlgorithm::EdDsa).is_err());

        // Another node, or the next start, with the same table and file.
        let again = KeyRing::open(db.clone(), path, clock()).await.unwrap();
        assert_eq!(again.list(), ring.list());
        let signer = again.keys().load().signer(SigningAlgorithm::Rs256).unwrap();
        assert_eq!(signer.algorithm(), SigningAlgorithm::Rs256);

        // A node without the file verifies, but signs nothing.
        let bare = KeyRing::open(db.clone(), folder.path().join("none"), clock()).await.unwrap();
        assert!(matches!(bare.keys().load().signer(SigningAlgorithm::Rs256), Err(KeyError::NoSigner(_))));
        assert!(bare.keys().load().verification_key(signer.kid(), 0).is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_key_is_published_but_does_not_sign() {
    for db in engines().await {
        let folder = tempfile::tempdir().unwrap();
        let ledger = systemprompt_audit::testing::ledger(&db, &[]).await;
        let ring = KeyRing::open(db.clone(), folder.path().join("ring.json"), clock()).await.unwrap();
        let other = KeyRing::open(db.clone(), folder.path().join("ring.json"), clock()).await.unwrap();

        let made = ring.generate(KeyUse::Sig, SigningAlgorithm::EdDsa, &ledger, None).await.unwrap();
        assert_eq!((made.state, made.alg), (KeyState::Next, "EdDSA"));
        assert_eq!(ring.jwks()["keys"][0]["kid"], *made.kid);
        assert!(ring.keys().load().signer(SigningAlgorithm::EdDsa).is_err());

        let before = other.keys().load().epoch;
        assert!(other.reload().await.unwrap());
        assert_eq!(other.list(), ring.list());
        assert!(other.keys().load().epoch > before);
        assert!(!other.reload().await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_only_the_file_knows_is_taken_over() {
    let [db, _] = engines().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring.json");
    let key = PrivateKey::generate(SigningAlgorithm::Rs256).unwrap();
    file::store(&path, std::iter::once(&key)).unwrap();
    let ledger = systemprompt_audit::testing::ledger(&db, &[]).await;
    let ring = KeyRing::open(db.clone(), path, clock()).await.unwrap();
    ring.ensure(SigningAlgorithm::Rs256, &ledger).await.unwrap();
    let list = ring.list();
    let tokens: Vec<_> = list.iter().filter(|info| info.key_use == KeyUse::Sig).collect();
    assert_eq!((tokens.len(), &*tokens[0].kid), (1, key.kid()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_no_sound_key_stops_the_ring() {
    for db in engines().await {
        let repository = KeyRepository::new(db.clone());
        let key = PrivateKey::generate(SigningAlgorithm::EdDsa).unwrap();
        let row = NewKeyRow {
            kid: "another-name",
            algorithm: SigningAlgorithm::EdDsa,
            key_use: KeyUse::Sig,
            state: KeyState::Active,
            public_jwk: key.public().to_jwk(),
        };
        repository.insert(row, 1, &systemprompt_models::ids::EntryId::generate()).await.unwrap();
        let opened = KeyRing::open(db.clone(), "none".into(), clock()).await;
        assert!(matches!(opened.err(), Some(KeyError::KidNotThumbprint)));
    }
}

const NOW: Millis = 1_800_000_000_000;

/// A ring that was begun at `NOW`, a second node on the same table and file, and the clock of both.
async fn two_nodes(db: &TestDb, folder: &tempfile::TempDir) -> (KeyRing, KeyRing, Ledger, ManualClock) {
    let (path, clock) = (folder.path().join("ring.json"), ManualClock::at(NOW));
    let ledger = systemprompt_audit::testing::ledger(db, &[]).await;
    let ring = KeyRing::open((**db).clone(), path.clone(), Arc::new(clock.clone())).await.unwrap();
    ring.ensure(SigningAlgorithm::Rs256, &ledger).await.unwrap();
    let other = KeyRing::open((**db).clone(), path, Arc::new(clock.clone())).await.unwrap();
    (ring, other, ledger, clock)
}

fn state_of(ring: &KeyRing, kid: &str) -> KeyState {
    ring.info(kid).unwrap().state
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_overlaps_publication_by_ten_minutes_and_verification_by_the_longest_token() {
    const ALG: SigningAlgorithm = SigningAlgorithm::Rs256;
    for db in engines().await {
        let folder = tempfile::tempdir().unwrap();
        let (ring, other, ledger, clock) = two_nodes(&db, &folder).await;
        let old = ring.keys().load().signer(ALG).unwrap().kid().to_owned();
        let none = ring.rotate(KeyUse::Sig, ALG, &ledger, None).await;
        assert!(matches!(none, Err(KeyError::NoNext(ALG))));

        let new = ring.generate(KeyUse::Sig, ALG, &ledger, None).await.unwrap().kid;
        assert_eq!(ring.jwks()["keys"].as_array().unwrap().len(), 2, "published before it signs");
        clock.advance(MIN_PUBLISHED - 1000);
        let early = ring.rotate(KeyUse::Sig, ALG, &ledger, None).await;
        assert!(matches!(early, Err(KeyError::TooYoung { wait_s: 1, .. })));
        assert_eq!(ring.keys().load().signer(ALG).unwrap().kid(), old);

        clock.advance(1000);
        let done = ring.rotate(KeyUse::Sig, ALG, &ledger, None).await.unwrap();
        assert_eq!((done.active.kid.clone(), done.active.state), (new.clone(), KeyState::Active));
        let until = done.retired.unwrap().verify_until.unwrap();
        assert_eq!(until, clock.now() + 86_400_000 + 300_000);
        assert!(other.refresh().await.unwrap());
        for node in [&ring, &other] {
            assert_eq!(node.keys().load().signer(ALG).unwrap().kid(), &*new);
            assert!(node.keys().load().verification_key(&old, clock.now()).is_some());
            assert_eq!(node.jwks()["keys"].as_array().unwrap().len(), 2);
        }
        // Asked again it is retired already, and nothing changes.
        assert_eq!(ring.retire(&old, ALG, &ledger, None).await.unwrap().verify_until, Some(until));

        clock.set(until);
        assert_eq!(ring.jwks()["keys"].as_array().unwrap().len(), 1);
        ring.refresh().await.unwrap();
        other.refresh().await.unwrap();
        assert_eq!((state_of(&ring, &old), state_of(&other, &old)), (KeyState::Removed, KeyState::Removed));
        let ended = ring.retire(&old, ALG, &ledger, None).await;
        assert!(matches!(ended, Err(KeyError::Ended { state: "removed", .. })));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_needed_is_not_retired_and_what_never_signed_leaves_at_once() {
    for db in engines().await {
        let folder = tempfile::tempdir().unwrap();
        let (ring, _, ledger, clock) = two_nodes(&db, &folder).await;
        ring.ensure(SigningAlgorithm::Es256, &ledger).await.unwrap();
        let kid = |alg| ring.keys().load().signer(alg).unwrap().kid().to_owned();
        let (rsa, es) = (kid(SigningAlgorithm::Rs256), kid(SigningAlgorithm::Es256));
        let internal = ring.keys().load().internal_signer().unwrap().kid().to_owned();
        for (kid, configured) in [
            (&rsa, SigningAlgorithm::Es256),
            (&es, SigningAlgorithm::Es256),
            (&internal, SigningAlgorithm::EdDsa),
        ] {
            let refused = ring.retire(kid, configured, &ledger, None).await;
            assert!(matches!(refused, Err(KeyError::StillNeeded { .. })), "{kid}");
        }
        // The profile has moved on to another algorithm.
        let retired = ring.retire(&es, SigningAlgorithm::Rs256, &ledger, None).await.unwrap();
        assert_eq!(retired.state, KeyState::Retired);
        assert!(ring.keys().load().verification_key(&es, clock.now()).is_some());

        let next = ring.generate(KeyUse::Sig, SigningAlgorithm::Rs256, &ledger, None).await.unwrap().kid;
        let withdrawn = ring.retire(&next, SigningAlgorithm::Rs256, &ledger, None).await.unwrap();
        assert_eq!((withdrawn.state, withdrawn.verify_until), (KeyState::Removed, None));
        assert!(ring.keys().load().verification_key(&next, clock.now()).is_none());
        assert!(matches!(
            ring.retire("none", SigningAlgorithm::Rs256, &ledger, None).await,
            Err(KeyError::Unknown(_))
        ));

        // The private parts of what has ended are gone from the file.
        let left: Vec<String> =
            file::load(&ring.path).unwrap().iter().map(|key| key.kid().to_owned()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left.contains(&rsa) && left.contains(&internal));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_dead_at_once_and_another_one_signs() {
    const ALG: SigningAlgorithm = SigningAlgorithm::Rs256;
    for db in engines().await {
        let folder = tempfile::tempdir().unwrap();
        let (ring, other, ledger, clock) = two_nodes(&db, &folder).await;
        let signer = |ring: &KeyRing| ring.keys().load().signer(ALG).unwrap().kid().to_owned();
        let first = signer(&ring);
        assert_eq!(ring.revoke(&first, &ledger, None).await.unwrap().state, KeyState::Revoked);
        let second = signer(&ring);
        assert_ne!(first, second);
        other.refresh().await.unwrap();
        for node in [&ring, &other] {
            assert!(node.keys().load().verification_key(&first, clock.now()).is_none());
            assert_eq!(signer(node), second);
        }
        assert!(matches!(ring.revoke(&first, &ledger, None).await, Err(KeyError::Ended { .. })));

        // One that waits takes the place at once, however young it is: nothing else signs.
        let third = ring.generate(KeyUse::Sig, ALG, &ledger, None).await.unwrap().kid;
        ring.revoke(&second, &ledger, None).await.unwrap();
        assert_eq!(signer(&ring), *third);
        let internal = ring.keys().load().internal_signer().unwrap().kid().to_owned();
        ring.revoke(&internal, &ledger, None).await.unwrap();
        assert_ne!(ring.keys().load().internal_signer().unwrap().kid(), internal);
        assert_eq!(state_of(&ring, &internal), KeyState::Revoked);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_keys_is_recorded() {
    let [db, _] = engines().await;
    let folder = tempfile::tempdir().unwrap();
    let (ring, _, ledger, clock) = two_nodes(&db, &folder).await;
    let before = ledger.metrics().records;
    ring.generate(KeyUse::Sig, SigningAlgorithm::Rs256, &ledger, None).await.unwrap();
    clock.advance(MIN_PUBLISHED);
    ring.rotate(KeyUse::Sig, SigningAlgorithm::Rs256, &ledger, None).await.unwrap();
    let active = ring.keys().load().signer(SigningAlgorithm::Rs256).unwrap().kid().to_owned();
    ring.revoke(&active, &ledger, None).await.unwrap();
    // generated; rotated and retired; revoked and generated.
    assert_eq!(ledger.metrics().records - before, 5);
}
