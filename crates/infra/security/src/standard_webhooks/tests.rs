use super::*;
use crate::governance::GovernanceExtension;
use systemprompt_database::testing::databases;
use systemprompt_extension::Extension;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const TIME: i64 = 1_614_265_330;
const BODY: &[u8] = br#"{"test": 2432232314}"#;
const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

fn secrets(setting: &str) -> WebhookSecrets {
    WebhookSecrets::parse(&setting.into()).unwrap()
}

fn headers(id: &str, time: &str, signature: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [(ID_HEADER, id), (TIMESTAMP_HEADER, time), (SIGNATURE_HEADER, signature)] {
        headers.insert(name, value.parse().unwrap());
    }
    headers
}

#[test]
fn case_8_the_published_literal_verifies_and_what_was_altered_does_not() {
    use WebhookError::{Header, Signature, Stale};
    let secrets = secrets(SECRET);
    assert_eq!(secrets.sign(ID, TIME, BODY), SIGNATURE);
    let time = TIME.to_string();
    let check = |id: &str, time: &str, signature: &str, body: &[u8], now: i64| {
        secrets.verify(&headers(id, time, signature), body, now).map(|message| message.id)
    };
    assert_eq!(check(ID, &time, SIGNATURE, BODY, TIME).as_deref(), Ok(ID));
    let two = format!("v1,AAAA v2,xyz {SIGNATURE}");
    for (id, time, signature, body, now, want) in [
        (ID, time.as_str(), two.as_str(), BODY, TIME, None),
        (ID, &time, SIGNATURE, BODY, TIME + 300, None),
        (ID, &time, SIGNATURE, BODY, TIME - 300, None),
        (ID, &time, SIGNATURE, BODY, TIME + 301, Some(Stale)),
        (ID, &time, SIGNATURE, BODY, TIME - 301, Some(Stale)),
        (ID, "-9223372036854775808", SIGNATURE, BODY, TIME, Some(Stale)),
        (ID, &time, SIGNATURE, br#"{"test": 2432232315}"#, TIME, Some(Signature)),
        ("msg_other", &time, SIGNATURE, BODY, TIME, Some(Signature)),
        (ID, "1614265331", SIGNATURE, BODY, TIME, Some(Signature)),
        (ID, &time, "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", BODY, TIME, Some(Signature)),
        (ID, &time, "v1,g0hM9SsE", BODY, TIME, Some(Signature)),
        (ID, "soon", SIGNATURE, BODY, TIME, Some(Header(TIMESTAMP_HEADER))),
        ("", &time, SIGNATURE, BODY, TIME, Some(Header(ID_HEADER))),
        (&"x".repeat(257), &time, SIGNATURE, BODY, TIME, Some(Header(ID_HEADER))),
    ] {
        assert_eq!(check(id, time, signature, body, now).err(), want, "{id} {time} {signature}");
    }
    let mut twice = headers(ID, &time, SIGNATURE);
    twice.append(SIGNATURE_HEADER, SIGNATURE.parse().unwrap());
    assert_eq!(secrets.verify(&twice, BODY, TIME), Err(Header(SIGNATURE_HEADER)));
    assert_eq!(secrets.verify(&HeaderMap::new(), BODY, TIME), Err(Header(ID_HEADER)));
}

#[test]
fn during_a_change_both_secrets_verify_and_the_first_one_signs() {
    let both = secrets(&format!("{OTHER} {SECRET}"));
    let time = TIME.to_string();
    assert!(both.verify(&headers(ID, &time, SIGNATURE), BODY, TIME).is_ok());
    let new = both.sign(ID, TIME, BODY);
    assert!(secrets(OTHER).verify(&headers(ID, &time, &new), BODY, TIME).is_ok());
    assert!(secrets(SECRET).verify(&headers(ID, &time, &new), BODY, TIME).is_err());
}

#[test]
fn what_is_no_secret_is_refused_without_being_repeated() {
    for setting in
        ["", "secret", "whsec_", "whsec_####", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
    {
        let error = WebhookSecrets::parse(&setting.into()).err().unwrap();
        assert!(setting.len() < 8 || !error.to_string().contains(setting));
    }
}

#[tokio::test]
async fn a_message_is_taken_once_on_each_endpoint_until_it_is_out_of_time() {
    for db in databases(&GovernanceExtension.migrations()).await {
        let (hook, other) = (Replays::new((*db).clone(), "inference"), Replays::new((*db).clone(), "authz"));
        let message = SignedMessage { id: ID.to_owned(), timestamp: TIME };
        let now = TIME * 1000;
        assert!(hook.take(&message, now).await.unwrap());
        assert!(!hook.take(&message, now + 1).await.unwrap());
        assert!(other.take(&message, now).await.unwrap());
        assert_eq!(hook.sweep(now + REMEMBERED_MS - 1).await.unwrap(), 0);
        assert!(!hook.take(&message, now + REMEMBERED_MS - 1).await.unwrap());
        assert_eq!(hook.sweep(now + REMEMBERED_MS).await.unwrap(), 2);
        assert!(hook.take(&message, now + REMEMBERED_MS).await.unwrap());
    }
}
