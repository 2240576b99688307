use super::*;
use crate::session::TokensExtension;
use systemprompt_database::testing::{TestDb, databases};
use systemprompt_extension::Extension as _;
use systemprompt_models::SystemClock;

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
        let mut made: Vec<_> = ring.list().iter().map(|key| (key.alg, key.state)).collect();
        made.sort_by_key(|(alg, _)| *alg);
        assert_eq!(made, [("ES256", KeyState::Active), ("RS256", KeyState::Active)]);
        assert_eq!(ring.jwks()["keys"].as_array().unwrap().len(), 2);

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

        let made = ring.generate(SigningAlgorithm::EdDsa, &ledger, None).await.unwrap();
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
    assert_eq!((list.len(), &*list[0].kid), (1, key.kid()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_no_sound_key_stops_the_ring() {
    for db in engines().await {
        let repository = TokenRepository::new(db.clone());
        let key = PrivateKey::generate(SigningAlgorithm::EdDsa).unwrap();
        let row = NewKeyRow {
            kid: "another-name",
            algorithm: SigningAlgorithm::EdDsa,
            state: KeyState::Active,
            public_jwk: key.public().to_jwk(),
        };
        repository.insert_key(row, 1, &systemprompt_models::ids::EntryId::generate()).await.unwrap();
        let opened = KeyRing::open(db.clone(), "none".into(), clock()).await;
        assert!(matches!(opened.err(), Some(KeyError::KidNotThumbprint)));
    }
}
