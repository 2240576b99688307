use super::*;
use serde_json::json;

const CALLBACK: &str = "https://app.example/cb";

fn read(members: Value, limits: Limits) -> Result<ClientMetadata, MetadataFault> {
    let members = members.as_object().cloned().unwrap_or_default();
    ClientMetadata::read(&members, ClientAuthMethod::ClientSecretBasic, limits)
}

fn with(name: &str, value: Value) -> Value {
    let mut members = json!({"redirect_uris": [CALLBACK]});
    members[name] = value;
    members
}

#[test]
fn id_19_what_is_not_said_has_a_default() {
    let read = read(json!({"redirect_uris": [CALLBACK], "unknown": {}}), Limits::Open).unwrap();
    assert_eq!(read.name, "Unnamed client");
    assert_eq!(read.auth_method, ClientAuthMethod::ClientSecretBasic);
    assert_eq!(read.relations.grant_types, [GrantType::AuthorizationCode]);
    assert_eq!(read.relations.response_types, ["code"]);
    assert_eq!(read.application_type, ApplicationType::Web);
    assert_eq!(read.id_token_signed_response_alg, SigningAlgorithm::Rs256);
    let mut open = OPEN_SCOPES.map(str::to_owned);
    open.sort_unstable();
    assert_eq!(read.relations.scopes, open);
}

#[test]
fn id_12_members_out_of_bounds_are_named() {
    let many = |n: usize| (0..n).map(|i| format!("https://app.example/{i}")).collect::<Vec<_>>();
    for (name, value) in [
        ("client_name", json!("")),
        ("client_name", json!("x".repeat(120))),
        ("redirect_uris", json!(many(20))),
        ("contacts", json!(["a@example.com", "b"])),
        ("client_uri", json!("https://app.example/")),
        ("id_token_signed_response_alg", json!("EdDSA")),
        ("grant_types", json!([])),
        ("scope", json!("user  mcp")),
    ] {
        assert!(read(with(name, value.clone()), Limits::Open).is_ok(), "{name} {value}");
    }
    for (name, value) in [
        ("client_name", json!("  ")),
        ("client_name", json!("x".repeat(121))),
        ("client_name", json!("a\u{202e}b")),
        ("client_name", json!("a\u{2066}b")),
        ("client_name", json!("a\nb")),
        ("client_name", json!(7)),
        ("redirect_uris", json!(many(21))),
        ("redirect_uris", json!("https://app.example/cb")),
        ("redirect_uris", json!([7])),
        ("grant_types", json!(["implicit"])),
        ("grant_types", json!(["password"])),
        ("response_types", json!(["token"])),
        ("response_types", json!(["code", "code id_token"])),
        ("contacts", json!(["a", "b", "c", "d", "e", "f"])),
        ("contacts", json!([""])),
        ("token_endpoint_auth_method", json!("client_secret_jwt")),
        ("application_type", json!("desktop")),
        ("id_token_signed_response_alg", json!("none")),
        ("id_token_signed_response_alg", json!("HS256")),
        ("client_uri", json!("javascript:alert(1) ")),
        ("jwks_uri", json!("http://app.example/keys")),
        ("scope", json!("us\"er")),
        ("software_id", json!("x".repeat(256))),
    ] {
        let fault = read(with(name, value.clone()), Limits::Open).unwrap_err();
        assert_eq!((fault.member, fault.code), (name, ErrorCode::InvalidClientMetadata), "{name} {value}");
    }
}

#[test]
fn redirect_uris_have_an_error_of_their_own() {
    for (members, member) in [
        (json!({}), "redirect_uris"),
        (json!({"redirect_uris": []}), "redirect_uris"),
        (json!({"redirect_uris": ["http://app.example/cb"]}), "redirect_uris"),
        (json!({"redirect_uris": ["http://localhost/cb"], "application_type": "web"}), "redirect_uris"),
        (with("post_logout_redirect_uris", json!(["data:x"])), "post_logout_redirect_uris"),
    ] {
        let fault = read(members, Limits::Full).unwrap_err();
        assert_eq!((fault.member, fault.code), (member, ErrorCode::InvalidRedirectUri));
    }
    let native = read(json!({"redirect_uris": ["http://localhost/cb"]}), Limits::Open).unwrap();
    assert_eq!(native.application_type, ApplicationType::Native);
    let machine = json!({"grant_types": ["client_credentials"], "scope": "user"});
    assert!(read(machine, Limits::Full).unwrap().relations.response_types.is_empty());
}

#[test]
fn id_18_who_asks_decides_what_a_client_may_have() {
    for grant in ["client_credentials", "urn:ietf:params:oauth:grant-type:token-exchange"] {
        let members = with("grant_types", json!(["authorization_code", grant]));
        assert_eq!(read(members.clone(), Limits::Open).unwrap_err().member, "grant_types");
        assert!(read(members, Limits::Full).is_ok());
    }
    let public = json!({"grant_types": ["client_credentials"], "token_endpoint_auth_method": "none"});
    assert_eq!(read(public, Limits::Full).unwrap_err().member, "grant_types");

    let scopes = |text: &str, limits| read(with("scope", json!(text)), limits).map(|m| m.relations.scopes);
    assert_eq!(scopes("user admin hook:govern", Limits::Open).unwrap(), ["user"]);
    assert_eq!(scopes("admin service", Limits::Open).unwrap_err().member, "scope");
    assert_eq!(scopes("user x:unknown", Limits::Owner).unwrap(), ["user", "x:unknown"]);
    for reserved in ["admin", "service", "hook:govern", "hook:track"] {
        assert_eq!(scopes(&format!("user {reserved}"), Limits::Owner).unwrap_err().member, "scope");
    }
    assert_eq!(scopes("admin service hook:track", Limits::Full).unwrap(), ["admin", "hook:track", "service"]);
}

#[test]
fn links_that_are_not_https_are_left_out() {
    for (uri, kept) in [
        ("https://app.example/logo.png", true),
        ("http://app.example/logo.png", false),
        ("javascript:alert(1)", false),
        ("data:image/png;base64,AA", false),
        ("https://u:p@app.example/", false),
    ] {
        let read = read(with("logo_uri", json!(uri)), Limits::Open).unwrap();
        assert_eq!(read.logo_uri.is_some(), kept, "{uri}");
    }
}

#[test]
fn a_software_statement_is_refused_as_one() {
    let fault = read(with("software_statement", json!("eyJ")), Limits::Full).unwrap_err();
    assert_eq!(fault.code, ErrorCode::InvalidSoftwareStatement);
}

#[test]
fn keys_are_public_strong_and_in_one_place() {
    let ed = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let signed = |jwks: Value| {
        let mut members = with("jwks", jwks);
        members["token_endpoint_auth_method"] = "private_key_jwt".into();
        read(members, Limits::Open)
    };
    assert!(signed(json!({"keys": [ed]})).is_ok());
    let mut private = ed.clone();
    private["d"] = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A".into();
    let mut encrypting = ed.clone();
    encrypting["use"] = "enc".into();
    let mut deriving = ed.clone();
    deriving["key_ops"] = json!(["deriveKey"]);
    let mut other = ed.clone();
    other["alg"] = "ES256".into();
    for (what, jwks) in [
        ("no set", json!([])),
        ("none", json!({"keys": []})),
        ("private", json!({"keys": [private]})),
        ("symmetric", json!({"keys": [{"kty": "oct", "k": "AAAA"}]})),
        ("for encryption", json!({"keys": [encrypting]})),
        ("not for verifying", json!({"keys": [deriving]})),
        ("of another algorithm", json!({"keys": [other]})),
        ("short", json!({"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]})),
    ] {
        assert_eq!(signed(jwks).unwrap_err().member, "jwks", "{what}");
    }
    let mut both = with("jwks", json!({"keys": [ed]}));
    both["jwks_uri"] = "https://app.example/keys".into();
    assert_eq!(read(both, Limits::Open).unwrap_err().member, "jwks_uri");
    assert_eq!(
        read(with("token_endpoint_auth_method", json!("private_key_jwt")), Limits::Open).unwrap_err().member,
        "jwks"
    );
}

#[test]
fn two_keys_of_a_type_are_told_apart_by_kid_alone() {
    let ed = |kid: Option<&str>| {
        let mut key =
            json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        if let Some(kid) = kid {
            key["kid"] = kid.into();
        }
        key
    };
    let set = |keys: Vec<Value>| ClientKeys::parse(&json!({"keys": keys}));
    assert!(set(vec![ed(None)]).unwrap().find(None, "EdDSA").is_some());
    assert!(set(vec![ed(None)]).unwrap().find(None, "ES256").is_none());
    assert!(set(vec![ed(None)]).unwrap().find(None, "HS256").is_none());
    let two = set(vec![ed(Some("a")), ed(Some("b"))]).unwrap();
    assert!(two.find(None, "EdDSA").is_none());
    assert!(two.find(Some("b"), "EdDSA").is_some() && two.find(Some("c"), "EdDSA").is_none());
    assert!(set(vec![ed(Some("a")), ed(Some("a"))]).is_err());
}
