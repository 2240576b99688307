use super::*;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

fn resolve(value: &str, run_commands: bool) -> Result<String, SecretsError> {
    let dir = TempDir::new().unwrap();
    for (name, text, mode) in [
        ("token", "from-file\n\n", 0o600),
        ("open", "x", 0o644),
        ("empty", "\n", 0o600),
        ("bytes", "\u{e9}", 0o600),
    ] {
        std::fs::write(dir.path().join(name), text).unwrap();
        std::fs::set_permissions(dir.path().join(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    let env: BTreeMap<String, String> = [
        ("TOKEN", "from-env"),
        ("NONE", ""),
        ("PATH", "/usr/bin:/bin"),
        ("CREDENTIALS_DIRECTORY", dir.path().to_str().unwrap()),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();
    let resolver =
        Resolver { env: &env, folder: dir.path(), file_mode: SecretsFileMode::Owner, run_commands };
    let text = serde_json::json!({ "x": value }).to_string();
    let mut secrets = Secrets::parse(&text).unwrap();
    resolver.resolve(&mut secrets).unwrap();
    match secrets.get("x") {
        Some(value) => Ok(value.expose().clone()),
        None => Err(secrets.unavailable("X").unwrap().clone()),
    }
}

#[test]
fn every_form_gives_its_value() {
    for (text, want) in [
        ("plain", "plain"),
        ("https://host:1/x", "https://host:1/x"),
        ("user:password", "user:password"),
        ("env:TOKEN", "from-env"),
        ("file:token", "from-file\n"),
        ("file:@token", "from-file\n"),
        ("literal:env:TOKEN", "env:TOKEN"),
        ("exec:printf '%s' \"a b\"", "a b"),
        ("exec:echo one\\ two", "one two"),
        ("exec:sh -c 'echo $TOKEN$HOME'", "__empty__"),
    ] {
        let got = resolve(text, true);
        if want == "__empty__" {
            assert_eq!(got, Err(SecretsError::Empty { key: "x".into() }), "{text}");
        } else {
            assert_eq!(got.as_deref(), Ok(want), "{text}");
        }
    }
}

#[test]
fn a_reference_that_fails_makes_the_secret_unavailable_and_says_why() {
    for (text, want) in [
        ("env:ABSENT", "the variable ABSENT is not set"),
        ("env:NONE", "is empty"),
        ("file:absent", "there is no secrets file"),
        ("file:open", "mode"),
        ("file:empty", "is empty"),
        ("file:@../token", "$CREDENTIALS_DIRECTORY"),
        ("exec:", "empty or has an open quote"),
        ("exec:echo 'x", "open quote"),
        ("exec:/no/such/program", "could not be started"),
        ("exec:false", "did not end with status 0"),
        ("exec:head -c 70000 /dev/zero", "did not end with status 0"),
        ("exec:printf '\\377'", "not UTF-8"),
        ("vault:secret/data/x", "unknown reference scheme"),
        ("op://vault/item", "unknown reference scheme"),
    ] {
        let error = resolve(text, true).unwrap_err().to_string();
        assert!(error.contains(want), "{text}: {error}");
    }
}

#[test]
fn commands_run_only_where_they_may() {
    let error = resolve("exec:echo x", false).unwrap_err();
    assert_eq!(error, SecretsError::Reference { key: "x".into(), problem: ReferenceProblem::CommandNotRun });
}

#[test]
fn a_platform_secret_that_does_not_resolve_is_an_error() {
    let env: BTreeMap<String, String> = BTreeMap::new();
    let resolver =
        Resolver { env: &env, folder: Path::new("/"), file_mode: SecretsFileMode::Owner, run_commands: true };
    let mut secrets = Secrets::parse(r#"{"jwt_secret": "env:ABSENT"}"#).unwrap();
    assert_eq!(resolver.resolve(&mut secrets).unwrap_err().code(), "secret_reference");
}

#[test]
fn the_reference_is_shown_in_place_of_the_value() {
    let folder = crate::testing::Folder::new().env("TOKEN", "hidden");
    folder.secrets(
        &crate::testing::GOOD_SECRETS
            .replace("t0p-s3cret-value", "env:TOKEN")
            .replace('}', r#", "by_command": "exec:echo --password=x y"}"#),
    );
    let secrets = folder.env("PATH", "/usr/bin:/bin").load().unwrap().secrets;
    assert_eq!(secrets.source("CRM_TOKEN"), Some("env:TOKEN"));
    assert_eq!(secrets.source("by_command"), Some("exec"));
    assert_eq!(secrets.source("jwt_secret"), None);
    assert_eq!(secrets.get("crm_token").unwrap().expose(), "hidden");
}

#[test]
fn a_command_that_does_not_end_is_ended() {
    let started = Instant::now();
    let error = resolve("exec:sh -c 'sleep 60; echo x'", true).unwrap_err();
    assert!(error.to_string().contains("within 10 s"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn what_would_be_looked_up_is_recognised() {
    for (text, want) in
        [("env:A", true), ("file:x", true), ("exec:x", true), ("literal:x", false), ("x", false)]
    {
        assert_eq!(is_reference(text), want, "{text}");
    }
}
