use super::*;

fn error(text: &str) -> SecretsError {
    Secrets::parse(text).err().unwrap_or_else(|| panic!("accepted {text}"))
}

#[test]
fn typed_and_custom_names_are_found_in_any_case() {
    let secrets = Secrets::parse(
        r#"{"JWT_Secret": "s", "Anthropic": "a", "github": null, "gemini": "", "My_Token": "t", "x": "1"}"#,
    )
    .unwrap();
    assert_eq!(secrets.get("ANTHROPIC").unwrap().expose(), "a");
    assert_eq!(secrets.get("my_token").unwrap().expose(), "t");
    assert_eq!(secrets.jwt_secret().unwrap().expose(), "s");
    for absent in ["jwt_secret", "github", "gemini", "nothing"] {
        assert!(secrets.get(absent).is_none(), "{absent}");
    }
    assert_eq!(secrets.provider_names(), ["anthropic"]);
    assert_eq!(secrets.custom_names(), ["My_Token", "x"]);
}

#[test]
fn platform_secrets_are_never_given_out() {
    let text = names::PLATFORM_SECRETS.map(|n| format!("\"{n}\": \"v\"")).join(",");
    let secrets = Secrets::parse(&format!("{{{text}}}")).unwrap();
    for name in names::PLATFORM_SECRETS {
        assert!(secrets.get(name).is_none() && secrets.get(&name.to_uppercase()).is_none(), "{name}");
    }
    assert!(secrets.custom_env_vars().is_empty());
    assert_eq!(secrets.values_in_use().count(), names::PLATFORM_SECRETS.len());
}

#[test]
fn variables_come_in_both_cases_once_where_equal_and_sorted() {
    let secrets = Secrets::parse(r#"{"crm_token": "1", "UPPER": "2", "github": "3"}"#).unwrap();
    let names: Vec<_> = secrets.custom_env_vars().into_iter().map(|(n, v)| (n, v.expose().clone())).collect();
    let want = [("CRM_TOKEN", "1"), ("UPPER", "2"), ("crm_token", "1")];
    assert_eq!(names, want.map(|(n, v)| (n.to_owned(), v.to_owned())));
}

#[test]
fn what_is_not_an_object_of_strings_is_refused() {
    let key = || "a".to_owned();
    for (text, want) in [
        ("{\n\"a\": }", SecretsError::Syntax { line: 2, column: 6 }),
        ("[]", SecretsError::Syntax { line: 1, column: 0 }),
        (r#"{"a": 1}"#, SecretsError::NotAString { key: key() }),
        (r#"{"a": true}"#, SecretsError::NotAString { key: key() }),
        (r#"{"a": [1, {"b": 2}]}"#, SecretsError::NotAString { key: key() }),
        (r#"{"a": {"b": []}}"#, SecretsError::NotAString { key: key() }),
        (r#"{"a": "1", "A": "2"}"#, SecretsError::DuplicateKey { first: key(), second: "A".into() }),
        (r#"{"a": "1", "a": "2"}"#, SecretsError::DuplicateKey { first: key(), second: key() }),
        (r#"{"a": "x\u0000y"}"#, SecretsError::ContainsNul { key: key() }),
        (r#"{"": "x"}"#, SecretsError::BadName { key: String::new() }),
        (r#"{"1a": "x"}"#, SecretsError::BadName { key: "1a".into() }),
        (r#"{"a-b": "x"}"#, SecretsError::BadName { key: "a-b".into() }),
    ] {
        assert_eq!(error(text), want, "{text}");
    }
    assert_eq!(
        error(&format!("{{\"{}\": \"x\"}}", "a".repeat(65))),
        SecretsError::BadName { key: "a".repeat(64) }
    );
    assert_eq!(
        error(&format!("{{\"a\": \"{}\"}}", "x".repeat(MAX_VALUE_BYTES + 1))),
        SecretsError::ValueTooLong { key: key() }
    );
    assert!(Secrets::parse(&format!("{{\"a\": \"{}\"}}", "x".repeat(MAX_VALUE_BYTES))).is_ok());
    assert_eq!(error(&" ".repeat(MAX_FILE_BYTES + 1)), SecretsError::TooLarge);
    let many = |n: usize| {
        format!("{{{}}}", (0..n).map(|i| format!("\"k{i}\": \"v\"")).collect::<Vec<_>>().join(","))
    };
    assert!(Secrets::parse(&many(MAX_CUSTOM)).is_ok());
    assert_eq!(error(&many(MAX_CUSTOM + 1)), SecretsError::TooMany);
}

#[test]
fn names_that_steer_a_child_are_reserved_in_any_case() {
    for name in [
        "PATH",
        "home",
        "Shell",
        "IFS",
        "ENV",
        "bash_env",
        "TMPDIR",
        "NODE_OPTIONS",
        "JAVA_TOOL_OPTIONS",
        "RUBYOPT",
        "PERL5LIB",
        "LD_PRELOAD",
        "dyld_insert_libraries",
        "PYTHONPATH",
        "python_x",
        "GIT_SSH",
        "ssh_auth_sock",
        "SYSTEMPROMPT_SERVER",
        "https_proxy",
        "NO_PROXY",
        "ANTHROPIC_API_KEY",
        "openai_api_key",
        "GEMINI_API_KEY",
        "GITHUB_TOKEN",
    ] {
        assert_eq!(error(&format!("{{\"{name}\": \"x\"}}")), SecretsError::ReservedName { key: name.into() });
    }
    for fine in ["MY_PATH", "PATHS", "GITHUB", "PROXY", "LDAP", "HOMEPAGE"] {
        assert!(Secrets::parse(&format!("{{\"{fine}\": \"x\"}}")).is_ok(), "{fine}");
    }
}

#[test]
fn platform_secrets_have_minimum_forms() {
    let seed = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    for (name, value, code) in [
        ("jwt_secret", "é".repeat(31), Some("secret_too_short")),
        ("jwt_secret", "abcd".repeat(8), None),
        ("jwt_secret", "a".repeat(40), Some("secret_placeholder")),
        ("oauth_at_rest_pepper", "abcd".repeat(7), Some("secret_too_short")),
        ("manifest_signing_secret_seed", seed.into(), None),
        ("manifest_signing_secret_seed", seed.replace('A', "!"), Some("secret_malformed")),
        ("manifest_signing_secret_seed", "AAECAwQ=".into(), Some("secret_malformed")),
        ("database_url", "sqlite:x.db".into(), None),
        ("database_url", "postgresql://h/d".into(), None),
        ("database_url", "mysql://h/d".into(), Some("secret_malformed")),
        ("authz_webhook_secret", "changeme".into(), Some("secret_placeholder")),
        ("authz_webhook_secret", "Change-Me!".into(), Some("secret_placeholder")),
        ("inference_hook_secret", format!("whsec_{seed}"), None),
        ("inference_hook_secret", format!("whsec_{seed} whsec_{}", seed.replace('A', "B")), None),
        ("inference_hook_secret", seed.into(), Some("secret_malformed")),
        ("inference_hook_secret", "whsec_AAECAwQ=".into(), Some("secret_malformed")),
    ] {
        let secrets = Secrets::parse(&format!("{{\"{name}\": \"{value}\"}}")).unwrap();
        let fault = secrets.validate().err();
        assert_eq!(fault.as_ref().map(SecretsError::code), code, "{name} {value}");
        if let Some(fault) = fault {
            let text = fault.diagnostic(None).to_string();
            assert!(text.contains(name) && !text.contains(&value), "{text}");
            assert!(fault.remedy().is_some(), "{text}");
        }
    }
    let short = Secrets::parse(r#"{"jwt_secret": "abc"}"#).unwrap().validate().unwrap_err();
    assert_eq!(
        short,
        SecretsError::TooShort { field: "jwt_secret", minimum: JWT_SECRET_MIN_LENGTH, found: 3 }
    );
}
