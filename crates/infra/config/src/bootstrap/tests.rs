use crate::testing::{Folder, GOOD_SECRETS};
use std::os::unix::fs::PermissionsExt;

/// Loads with a mode and environment; the codes of errors and of warnings.
fn codes(folder: Folder, mode: &str, environment: &str) -> (Vec<&'static str>, Vec<&'static str>) {
    let folder = folder
        .env("SYSTEMPROMPT__SECRETS__VALIDATION", mode)
        .env("SYSTEMPROMPT__RUNTIME__ENVIRONMENT", environment);
    let findings = match folder.load() {
        Ok(loaded) => loaded.warnings,
        Err(findings) => findings,
    };
    let of = |error: bool| findings.iter().filter(|f| f.is_error() == error).map(|f| f.code).collect();
    (of(true), of(false))
}

fn with(text: &str) -> Folder {
    let folder = Folder::new();
    folder.secrets(text);
    folder
}

fn changed(from: &str, to: &str) -> String {
    GOOD_SECRETS.replace(from, to)
}

#[test]
fn each_problem_is_met_as_its_mode_says() {
    let short = changed("0123456789abcdef0123456789abcdef", "short");
    let malformed = changed("AAECAwQF", "!");
    let missing = changed("oauth_at_rest_pepper", "some_custom_name");
    let custom = changed("t0p-s3cret-value", "changeme");
    let unresolved = changed("t0p-s3cret-value", "env:ABSENT");
    let foreign = changed("t0p-s3cret-value", "vault:x");
    let twice = changed("crm_token", "JWT_SECRET");
    let stops = |code| (vec![code], vec![]);
    let warns = |code| (vec![], vec![code]);
    let passes = (vec![], vec![]);
    let rows = [
        (
            &short,
            stops("secret_too_short"),
            stops("secret_too_short"),
            stops("secret_too_short"),
            stops("secret_too_short"),
        ),
        (
            &malformed,
            stops("secret_malformed"),
            stops("secret_malformed"),
            passes.clone(),
            stops("skip_outside_test"),
        ),
        (
            &missing,
            stops("secret_missing"),
            stops("secret_missing"),
            passes.clone(),
            stops("skip_outside_test"),
        ),
        (
            &twice,
            stops("secret_duplicate"),
            stops("secret_duplicate"),
            (vec![], vec![]),
            stops("skip_outside_test"),
        ),
        (&custom, stops("secret_placeholder"), warns("secret_placeholder"), passes.clone(), passes.clone()),
        (&unresolved, stops("secret_reference"), warns("secret_reference"), passes.clone(), passes.clone()),
        (&foreign, stops("secret_unknown_scheme"), warns("secret_unknown_scheme"), passes.clone(), passes),
    ];
    for (text, strict, warn, skip_in_test, skip) in rows {
        assert_eq!(codes(with(text), "strict", "production"), strict, "strict {text}");
        assert_eq!(codes(with(text), "warn", "production"), warn, "warn {text}");
        assert_eq!(codes(with(text), "skip", "test"), skip_in_test, "skip, test {text}");
        assert_eq!(codes(with(text), "skip", "production").0.first(), skip.0.first(), "skip {text}");
    }
}

#[test]
fn a_file_that_others_may_read_stops_the_start() {
    for (mode, environment, want) in [
        ("strict", "production", Some("secrets_file_mode")),
        ("warn", "production", Some("secrets_file_mode")),
        ("skip", "production", Some("skip_outside_test")),
        ("skip", "test", None),
    ] {
        let folder = Folder::new();
        let path = folder.location().default_secrets_file();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(codes(folder, mode, environment).0.first().copied(), want, "{mode} {environment}");
    }
}

#[test]
fn a_placeholder_is_out_of_use_in_mode_warn() {
    let loaded = with(&changed("t0p-s3cret-value", "changeme")).load().unwrap();
    assert!(loaded.secrets.get("crm_token").is_none());
    assert_eq!(loaded.secrets.unavailable("CRM_TOKEN").unwrap().code(), "secret_placeholder");
}

#[test]
fn secrets_may_come_from_the_environment() {
    let folder = Folder::new()
        .env("SYSTEMPROMPT__SECRETS__SOURCE", "env")
        .env("SYSTEMPROMPT_SECRET_JWT_SECRET", "0123456789abcdef0123456789abcdef")
        .env("SYSTEMPROMPT_SECRET_OAUTH_AT_REST_PEPPER", "env:PEPPER")
        .env("PEPPER", "fedcba9876543210fedcba9876543210")
        .env(
            "SYSTEMPROMPT_SECRET_MANIFEST_SIGNING_SECRET_SEED",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        )
        .env("SYSTEMPROMPT_SECRET_DEMO_CRM_TOKEN", "t");
    std::fs::remove_file(folder.location().default_secrets_file()).unwrap();
    let loaded = folder.load().unwrap();
    assert_eq!(loaded.secrets.get("demo_crm_token").unwrap().expose(), "t");
    assert!(loaded.secrets.oauth_at_rest_pepper().unwrap().expose().starts_with("fedc"));
}

#[test]
fn the_address_must_fit_the_engine() {
    let postgres = changed("crm_token", "database_url").replace("t0p-s3cret-value", "postgres://u:p@h/d");
    for (text, engine, fits) in [
        (GOOD_SECRETS, "sqlite", true),
        (GOOD_SECRETS, "postgres", false),
        (&postgres, "postgres", true),
        (&postgres, "sqlite", false),
    ] {
        let loaded = with(text).env("SYSTEMPROMPT__DATABASE__TYPE", engine).load();
        assert_eq!(loaded.is_ok(), fits, "{engine}");
        if let Err(findings) = loaded {
            assert_eq!(findings[0].code, "database_url_mismatch");
            assert!(!findings[0].to_string().contains("u:p"));
        }
    }
}
