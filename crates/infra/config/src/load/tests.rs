use crate::diagnostic::Origin;
use crate::testing::{Folder, RULES_HOOK};
use serde_json::json;

#[test]
fn defaults_are_those_of_the_documents() {
    let loaded = Folder::new().load().unwrap();
    let effective = serde_json::to_value(&*loaded.profile).unwrap();
    for (pointer, want) in [
        ("/server/host", json!("127.0.0.1")),
        ("/server/port", json!(8080)),
        ("/server/body_limit", json!(2_097_152)),
        ("/server/max_concurrent_streams", json!(1024)),
        ("/server/max_streams_per_user", json!(10)),
        ("/server/drain_seconds", json!(30)),
        ("/server/drain_delay_ms", json!(0)),
        ("/server/header_timeout_ms", json!(10_000)),
        ("/server/keepalive_ms", json!(75_000)),
        ("/server/content_negotiation/markdown_suffix", json!(".md")),
        ("/database/type", json!("sqlite")),
        ("/database/max_connections", json!(16)),
        ("/security/jwt_access_token_expiration", json!(3600)),
        ("/security/jwt_refresh_token_expiration", json!(2_592_000)),
        ("/security/signing_algorithm", json!("RS256")),
        ("/security/scanner/auto_ban", json!({"enabled": true, "hits": 20, "window_s": 600, "ban_s": 3600})),
        ("/rate_limits/burst_multiplier", json!(3)),
        ("/rate_limits/disabled", json!(false)),
        (
            "/rate_limits/tier_multipliers",
            json!({"admin": 10.0, "user": 1.0, "a2a": 5.0, "mcp": 5.0, "service": 5.0, "anon": 0.5}),
        ),
        ("/secrets/source", json!("file")),
        ("/secrets/validation", json!("warn")),
        ("/secrets/file_mode", json!("owner")),
        ("/governance/authz/actor_check", json!("deny_only")),
        ("/governance/pipeline/enabled", json!(true)),
        ("/gateway/enabled", json!(true)),
        ("/gateway/allow_unlisted_models", json!(false)),
        ("/gateway/timeouts/stream_idle_ms", json!(120_000)),
        ("/gateway/body_limit", json!(33_554_432)),
        ("/audit/min_free_bytes", json!(268_435_456)),
        ("/audit/group/queue_max", json!(8192)),
        ("/audit/group/batch_max_bytes", json!(1_048_576)),
        ("/audit/group/append_timeout_ms", json!(2000)),
        ("/audit/group/commit_timeout_ms", json!(10_000)),
        ("/audit/checkpoint", json!({"records": 1000, "seconds": 10, "heartbeat_seconds": 3600})),
        ("/audit/witness", json!([])),
        (
            "/audit/payloads",
            json!({"inference": "hash_only", "tool": "redacted", "change": "full", "client": "full", "note": "full"}),
        ),
        (
            "/audit/retention",
            json!({"default_days": 400, "kinds": {"admin.*": 1100}, "below_six_months": null,
                "payloads": {"inference": 30, "tool": 90, "change": 1100, "client": 30, "note": 400}}),
        ),
    ] {
        assert_eq!(effective.pointer(pointer), Some(&want), "{pointer}");
    }
    let limits = [
        ("oauth_public", 10),
        ("oauth_auth", 10),
        ("oauth_token", 100),
        ("contexts", 100),
        ("tasks", 50),
        ("artifacts", 50),
        ("agent_registry", 50),
        ("agents", 20),
        ("mcp_registry", 50),
        ("mcp", 200),
        ("stream", 100),
        ("content", 50),
        ("analytics", 50),
        ("engagement", 50),
        ("admin", 10),
        ("gateway", 200),
        ("hooks", 100),
        ("bridge", 20),
        ("otel", 50),
        ("sync", 5),
        ("marketplace", 50),
        ("wellknown", 50),
        ("webhook", 50),
        ("unverified", 100),
    ];
    for (group, per_second) in limits {
        assert_eq!(effective["rate_limits"][format!("{group}_per_second")], json!(per_second), "{group}");
    }
    assert_eq!(loaded.profile.api_external_url(), "http://localhost:8080");
    assert_eq!(loaded.profile.audit.group.batch_max_records(loaded.profile.database.kind), 64);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn flag_beats_environment_beats_profile_beats_default() {
    let mut folder = Folder::new();
    folder.profile(&format!("{RULES_HOOK}server:\n  port: 1001\n  drain_seconds: 5\n  keepalive_ms: 900\n"));
    folder = folder
        .env("SYSTEMPROMPT__SERVER__PORT", "1002")
        .env("SYSTEMPROMPT__SERVER__DRAIN_SECONDS", "6")
        .env("SYSTEMPROMPT__RUNTIME__LOG_LEVEL", "debug");
    folder.flags = vec![("server.port".into(), "1003".into())];
    let loaded = folder.load().unwrap();
    assert_eq!(loaded.profile.server.port, 1003);
    assert_eq!(loaded.profile.server.drain_seconds, 6);
    assert_eq!(loaded.profile.server.keepalive_ms, 900);
    assert_eq!(loaded.profile.server.header_timeout_ms, 10_000);
    let origin = |key: &str| loaded.settings().into_iter().find(|l| l.key == key).unwrap().origin;
    assert_eq!(origin("server.port"), Origin::Flag { name: "server.port".into() });
    assert_eq!(
        origin("server.drain_seconds"),
        Origin::Environment { name: "SYSTEMPROMPT__SERVER__DRAIN_SECONDS".into() }
    );
    assert_eq!(
        origin("server.keepalive_ms"),
        Origin::File { file: folder.location().profile_file(), line: 5 }
    );
    assert_eq!(origin("server.header_timeout_ms"), Origin::Default);
}

#[test]
fn variables_take_the_type_of_their_setting() {
    let loaded = Folder::new()
        .env("SYSTEMPROMPT__NAME", "2024")
        .env("SYSTEMPROMPT__RATE_LIMITS__DISABLED", "true")
        .env("SYSTEMPROMPT__RATE_LIMITS__TIER_MULTIPLIERS__ANON", "0.25")
        .env("SYSTEMPROMPT__SERVER__BODY_LIMIT", "3 MiB")
        .env("SYSTEMPROMPT__SERVER__TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.7")
        .env("SYSTEMPROMPT__SERVER__SECURITY_HEADERS", "{x-frame-options: SAMEORIGIN}")
        .env("SYSTEMPROMPT__SECURITY__JWT_AUDIENCES", "[api, mcp]")
        .load()
        .unwrap();
    let profile = &loaded.profile;
    assert_eq!(profile.name, "2024");
    assert!(profile.rate_limits.disabled);
    assert!((profile.rate_limits.tier_multipliers.anon - 0.25).abs() < f64::EPSILON);
    assert_eq!(profile.server.body_limit.bytes(), 3 << 20);
    assert!(profile.server.trusted_proxies[1].contains("::ffff:192.0.2.7".parse().unwrap()));
    assert_eq!(profile.server.security_headers["x-frame-options"], "SAMEORIGIN");
    assert_eq!(profile.security.jwt_audiences.len(), 2);
}

#[test]
fn a_bad_variable_is_named() {
    for (name, value, code, text) in [
        ("SYSTEMPROMPT__SERVER__PROT", "1", "unknown_key", "did you mean `port`?"),
        ("SYSTEMPROMPT__SEVER__PORT", "1", "unknown_key", "did you mean `server`?"),
        ("SYSTEMPROMPT__SERVER__PORT", "many", "invalid_type", "expected a whole number"),
        (
            "SYSTEMPROMPT__RUNTIME__LOG_LEVEL",
            "loud",
            "invalid_value",
            "allowed: error, warn, info, debug, trace",
        ),
        ("SYSTEMPROMPT__SERVER__TRUSTED_PROXIES", "[1", "yaml_syntax", "trusted_proxies"),
    ] {
        let (found, line, _, message) = Folder::new().env(name, value).fault();
        assert_eq!((found, line), (code, 0), "{message}");
        assert!(message.contains(text) && message.contains(name), "{message}");
    }
}

#[test]
fn a_bad_profile_names_place_allowed_values_and_suggestion() {
    for (text, code, line, column, says) in [
        ("server:\n  prot: 1\n", "unknown_key", 2, 3, "did you mean `port`?"),
        ("servers: {}\n", "unknown_key", 1, 1, "did you mean `server`?"),
        ("port: 80\n", "unknown_key", 1, 1, "it belongs to `server.port`"),
        ("agents: {}\n", "unknown_key", 1, 1, "allowed: audit, database"),
        ("server:\n  port: 70000\n", "invalid_value", 2, 9, "at most 65535"),
        ("server:\n  port: 80.5\n", "invalid_type", 2, 9, "expected a whole number, found a number"),
        ("server:\n  port: \"80\"\n", "invalid_type", 2, 9, "expected a whole number, found text"),
        ("server:\n", "invalid_type", 1, 7, "expected a mapping, found nothing"),
        ("display_name: 7\n", "invalid_type", 1, 15, "put the value in quotes"),
        ("runtime:\n  log_level: inf\n", "invalid_value", 2, 14, "did you mean `info`?"),
        ("security:\n  signing_algorithm: HS256\n", "invalid_value", 2, 22, "RS256, ES256, EdDSA"),
        ("security:\n  jwt_audiences: [api, everything]\n", "invalid_value", 2, 24, "allowed: web"),
        ("server:\n  body_limit: 2 MB\n", "invalid_value", 2, 15, "does not have the right form"),
        ("server:\n  host: localhost\n", "invalid_value", 2, 9, "not an IP address"),
        ("server:\n  trusted_proxies: [10.0.0.0/40]\n", "invalid_value", 2, 21, "range like"),
        ("server:\n  trusted_proxies: [0.0.0.0/0]\n", "invalid_value", 2, 21, "trust every peer"),
        (
            "server:\n  security_headers: { x-frame-options: ALLOWALL }\n",
            "invalid_value",
            2,
            40,
            "could frame the sign-in pages",
        ),
        (
            "server:\n  security_headers: { content-security-policy: \"frame-ancestors *\" }\n",
            "invalid_value",
            2,
            48,
            "could frame the sign-in pages",
        ),
        ("server:\n  cors_allowed_origins: ['*']\n", "invalid_value", 2, 26, "not an exact origin"),
        ("server:\n  cors_allowed_origins: [http://example.com]\n", "invalid_value", 2, 26, "https://host"),
        ("server:\n  api_external_url: ftp://x\n", "invalid_value", 2, 21, "http or https URL"),
        ("server:\n  api_external_url: http://corp.example\n", "insecure_url", 2, 21, "loopback alone"),
        ("server:\n  api_external_url: http://10.0.0.7:8080\n", "insecure_url", 2, 21, "the https address"),
        ("server:\n  api_external_url: https://x/y\n", "invalid_value", 2, 21, "must not have a path"),
        (
            "server:\n  security_headers: {x-frame-option: a}\n",
            "unknown_key",
            2,
            22,
            "did you mean `x-frame-options`?",
        ),
        ("rate_limits: {admin_per_second: 0}\n", "invalid_value", 1, 33, "at least 1"),
        ("database: {type: mysql}\n", "invalid_value", 1, 18, "allowed: sqlite, postgres"),
        ("audit: {group: {batch_window_ms: 51}}\n", "invalid_value", 1, 34, "at most 50"),
        ("audit: {checkpoint: {records: 0}}\n", "invalid_value", 1, 31, "at least 1"),
        ("audit: {signing_key_path: 'exec: '}\n", "invalid_value", 1, 27, "exec:COMMAND"),
        ("audit: {sinks: [{name: a, type: file}]}\n", "missing_key", 1, 33, "needs `path`"),
        (
            "audit: {sinks: [{name: a, type: syslog, url: 'siem:6514'}]}\n",
            "invalid_value",
            1,
            46,
            "tls://host:port",
        ),
        (
            "audit: {sinks: [{name: a, type: http, url: 'http://x.example/'}]}\n",
            "insecure_url",
            1,
            44,
            "use https",
        ),
        ("audit: {witness: [{type: c2sp}]}\n", "invalid_value", 1, 26, "allowed: file, http"),
        ("audit: {witness: [{type: file}]}\n", "missing_key", 1, 26, "needs `path`"),
        ("audit: {witness: [{type: file, path: w, url: 'https://w'}]}\n", "not_for_type", 1, 46, "no `url`"),
        ("audit: {witness: [{type: http, url: 'http://w.example/x'}]}\n", "insecure_url", 1, 37, "use https"),
        ("audit: {payloads: {tool: all}}\n", "invalid_value", 1, 26, "full, redacted, hash_only, off"),
        ("audit: {retention: {default_days: 182}}\n", "acknowledgement_required", 1, 35, "at least 183 days"),
        (
            "audit: {retention: {kinds: {'tool.*': 182}}}\n",
            "acknowledgement_required",
            1,
            39,
            "below_six_months",
        ),
        ("audit: {retention: {kinds: {'tools.*': 400}}}\n", "unknown_key", 1, 29, "did you mean `tool.*`"),
        ("audit: {retention: {kinds: {'system.*': 400}}}\n", "invalid_value", 1, 29, "kept for ever"),
        ("audit: {retention: {payloads: {tool: 0}}}\n", "invalid_value", 1, 38, "at least 1"),
        ("secrets: {validation: lax}\n", "invalid_value", 1, 23, "strict, warn, skip"),
        ("name: a\nname: b\n", "yaml_syntax", 2, 1, "name"),
        ("name: ${NOT_SET}\n", "variable_unset", 1, 7, "NOT_SET"),
    ] {
        let folder = Folder::new();
        folder.profile(&format!("{text}{RULES_HOOK}"));
        let (found, at_line, at_column, message) = folder.fault();
        assert_eq!((found, at_line, at_column), (code, line, column), "{text}\n{message}");
        assert!(message.contains(says), "{text}\n{message}");
    }
}

#[test]
fn a_short_retention_is_taken_when_it_is_acknowledged() {
    let folder = Folder::new();
    let text =
        "audit: {retention: {default_days: 30, kinds: {'tool.*': 10}, below_six_months: acknowledged}}\n";
    folder.profile(&format!("{text}{RULES_HOOK}"));
    let kept = &folder.load().unwrap().profile.audit.retention;
    assert_eq!((kept.default_days, kept.kinds["tool.*"], kept.kinds["admin.*"]), (30, 10, 1100));
}

#[test]
fn contradictions_are_found() {
    let provider = "gateway:\n  providers:\n    - {name: a, type: demo}\n";
    for (text, code, line, says) in [
        ("governance: {authz: {hook: {mode: unrestricted}}}\n".to_owned(), "acknowledgement_required", 1, "to the letter"),
        (
            "governance: {authz: {hook: {mode: unrestricted, acknowledgement: I understand this disables all authorization.}}}\n".into(),
            "acknowledgement_required", 1, "allowed: I understand",
        ),
        ("governance: {authz: {hook: {mode: webhook}}}\n".into(), "missing_key", 1, "needs the `url`"),
        ("governance: {authz: {hook: {mode: alow}}}\n".into(), "invalid_value", 1, "allowed: rules, webhook, disabled, unrestricted"),
        ("security: {jwt_refresh_token_expiration: 600}\n".into(), "invalid_value", 1, "must not end before"),
        (format!("{provider}    - {{name: a, type: demo}}\n"), "duplicate_name", 4, "profile.yaml:3"),
        (format!("{provider}  routes:\n    - {{name: r, model: '*', targets: [{{provider: b}}]}}\n"), "unknown_provider", 5, "allowed: a"),
        (
            format!("{provider}  routes:\n    - {{name: r, model: '*', targets: [{{provider: a}},\n        {{provider: a}}]}}\n"),
            "invalid_value", 5, "at most 1",
        ),
        (format!("{provider}  routes:\n    - {{name: r, model: '*', targets: []}}\n"), "invalid_value", 5, "at least 1"),
        (format!("{provider}  default_route: x\n"), "unknown_route", 4, "no route `x`"),
        (format!("{provider}  allow_unlisted_models: true\n"), "missing_key", 4, "default_route"),
        (format!("{provider}    - {{name: b, type: demo, base_url: 'https://x'}}\n"), "not_for_type", 4, "base_url"),
        (format!("{provider}    - {{name: b, type: anthropic, base_url: 'http://example.com'}}\n"), "insecure_url", 4, "loopback"),
        (format!("{provider}    - {{name: b, type: anthropic, api_key_secret: jwt_secret}}\n"), "platform_secret_not_leasable", 4, "jwt_secret"),
        (format!("{provider}    - {{name: b, type: anthropic, headers: {{x-api-key: k}}}}\n"), "reserved_header", 4, "api_key_secret"),
        (format!("{provider}    - {{name: b, type: anthropc}}\n"), "invalid_value", 4, "did you mean `anthropic`?"),
        (format!("{provider}  routes:\n    - {{name: r, model: a*b, targets: [{{provider: a}}]}}\n"), "invalid_value", 5, "right form"),
    ] {
        let folder = Folder::new();
        folder.profile(&text);
        let (found, at_line, _, message) = folder.fault();
        assert_eq!((found, at_line), (code, line), "{text}\n{message}");
        assert!(message.contains(says), "{text}\n{message}");
    }
}

#[test]
fn every_fault_is_reported_at_once() {
    let folder = Folder::new().env("SYSTEMPROMPT__SERVER__PROT", "1");
    folder.profile("server: {port: x, hots: 1}\nnames: y\nruntime: {log_level: z}\n");
    let findings = folder.load().err().unwrap();
    assert_eq!(findings.len(), 5, "{findings:#?}");

    let folder = Folder::new();
    folder.write("services/mcp/a.yaml", "mcp_servers: {a: {type: http}}\n");
    folder.write("services/access-control/a.yaml", "rule: []\n");
    folder.secrets(r#"{"jwt_secret": "short"}"#);
    let codes: Vec<_> = folder.load().err().unwrap().into_iter().map(|d| d.code).collect();
    assert_eq!(codes, ["unknown_key", "invalid_value", "secret_too_short"]);
}

#[test]
fn weak_settings_are_warned_of() {
    for (text, code) in [
        ("name: x\n", "authz_default_deny"),
        ("governance: {authz: {hook: {mode: rules}}, pipeline: {enabled: false}}\n", "governance_disabled"),
        (
            "governance: {authz: {hook: {mode: unrestricted, acknowledgement: I understand this disables all authorization}}}\n",
            "authz_unrestricted",
        ),
        (
            "governance: {authz: {hook: {mode: rules}}}\ngateway: {providers: [{name: a, type: demo}], routes: [\
             {name: all, model: 'c*', targets: [{provider: a}]}, {name: b, model: claude-1, targets: [{provider: a}]}]}\n",
            "shadowed_route",
        ),
        (
            "governance: {authz: {hook: {mode: rules}}}\ngateway: {providers: [{name: a, type: anthropic}]}\n",
            "secret_missing",
        ),
        (
            "governance: {authz: {hook: {mode: rules}}}\nserver: {api_external_url: 'http://127.0.0.1:8080'}\n",
            "no_passkeys",
        ),
        (
            "governance: {authz: {hook: {mode: rules}}}\nserver: {api_external_url: 'https://[2001:db8::1]'}\n",
            "no_passkeys",
        ),
    ] {
        let folder = Folder::new();
        folder.profile(text);
        let warnings = folder.load().unwrap_or_else(|f| panic!("{text}: {f:?}")).warnings;
        assert_eq!(warnings.iter().map(|d| d.code).collect::<Vec<_>>(), [code], "{text}");
    }
}

#[test]
fn a_missing_profile_says_how_to_make_one() {
    let folder = Folder::new();
    std::fs::remove_file(folder.location().profile_file()).unwrap();
    let (code, _, _, message) = folder.fault();
    assert_eq!(code, "profile_missing");
    assert!(message.contains("systemprompt up"), "{message}");
}

#[test]
fn the_hash_follows_settings_and_services_but_not_secrets_or_comments() {
    let folder = Folder::new();
    let first = folder.load().unwrap().hash;
    assert_eq!(first.len(), 64);
    folder.profile(&format!("# a comment\n{RULES_HOOK}"));
    assert_eq!(folder.load().unwrap().hash, first);
    folder.secrets(&crate::testing::GOOD_SECRETS.replace("t0p", "other"));
    assert_eq!(folder.load().unwrap().hash, first);
    folder.write("services/governance/config.yaml", "governance: {enabled: true}\n");
    let second = folder.load().unwrap().hash;
    assert_ne!(second, first);
    folder.profile(&format!("{RULES_HOOK}name: other\n"));
    assert_ne!(folder.load().unwrap().hash, second);
}

#[test]
fn the_database_address_has_a_default_and_counts_from_the_data_folder() {
    let folder = Folder::new();
    let dir = folder.dir.path().display().to_string();
    assert_eq!(folder.load().unwrap().database_url().expose(), &format!("sqlite:{dir}/systemprompt.db"));
    for (url, want) in [
        ("sqlite:x/y.db", format!("sqlite:{dir}/x/y.db")),
        ("sqlite://y.db", format!("sqlite:{dir}/y.db")),
        ("sqlite:/abs/y.db", "sqlite:/abs/y.db".to_owned()),
    ] {
        folder.secrets(
            &crate::testing::GOOD_SECRETS
                .replace("crm_token", "database_url")
                .replace("t0p-s3cret-value", url),
        );
        assert_eq!(folder.load().unwrap().database_url().expose(), &want);
    }
}

#[test]
fn keys_that_need_a_restart_stay_and_are_listed() {
    let folder = Folder::new();
    let running = folder.load().unwrap();
    folder.profile(&format!(
        "{RULES_HOOK}server: {{port: 9, drain_seconds: 3}}\ndatabase: {{max_connections: 4}}\npaths: {{storage: elsewhere}}\n"
    ));
    let fresh = folder.load().unwrap();
    assert_eq!(
        fresh.changed_keys(&running),
        ["database.max_connections", "paths.storage", "server.drain_seconds", "server.port"]
    );
    let (kept, pending) = fresh.kept_running(&running);
    assert_eq!(pending, ["database.max_connections", "server.port", "paths.storage"]);
    assert_eq!(kept.profile.server.port, 8080);
    assert_eq!(kept.profile.server.drain_seconds, 3);
    assert_eq!(kept.paths, running.paths);
    assert_eq!(kept.changed_keys(&running), ["server.drain_seconds"]);
}

#[test]
fn a_finding_renders_with_its_line() {
    let folder = Folder::new();
    folder.profile("server:\n  prot: 1\n");
    let finding = folder.load().err().unwrap().remove(0);
    let mut text = String::new();
    miette::NarratableReportHandler::new().render_report(&mut text, &finding).unwrap();
    assert!(
        text.contains("profile.yaml") && text.contains("prot: 1") && text.contains("did you mean `port`?"),
        "{text}"
    );
}
