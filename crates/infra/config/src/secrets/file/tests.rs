use super::*;
use crate::testing::GOOD_SECRETS;
use std::os::unix::fs::{PermissionsExt, symlink};
use tempfile::TempDir;

const OWNER: SecretsFileMode = SecretsFileMode::Owner;

fn file(text: &str, mode: u32) -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("secrets.json");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    (dir, path)
}

#[test]
fn modes_beyond_the_allowed_are_refused_with_the_command_that_mends_it() {
    for (mode, rule, allowed) in [
        (0o600, OWNER, true),
        (0o400, OWNER, true),
        (0o640, OWNER, false),
        (0o604, OWNER, false),
        (0o700, OWNER, false),
        (0o640, SecretsFileMode::Group, true),
        (0o440, SecretsFileMode::Group, true),
        (0o660, SecretsFileMode::Group, false),
        (0o644, SecretsFileMode::Group, false),
    ] {
        let (_dir, path) = file("{}", mode);
        match read_checked(&path, rule) {
            Ok(_) => assert!(allowed, "{mode:o}"),
            Err(error) => {
                assert!(!allowed, "{mode:o}: {error}");
                assert_eq!(error.code(), "secrets_file_mode");
                assert!(error.remedy().unwrap().starts_with("chmod 06"), "{error}");
            }
        }
    }
}

#[test]
fn only_a_regular_file_in_a_safe_folder_is_read() {
    let code = |path: &Path| read_checked(path, OWNER).err().map(|e| e.code());
    let (dir, path) = file("{}", 0o600);
    assert_eq!(code(dir.path()), Some("secrets_file_type"));
    assert_eq!(code(&dir.path().join("absent")), Some("secrets_file_missing"));
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert_eq!(code(&fifo), Some("secrets_file_type"));
    let link = dir.path().join("link");
    symlink(&path, &link).unwrap();
    assert_eq!(code(&link), None);
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    assert_eq!(code(&path), Some("secrets_folder_writable"));
}

#[test]
fn a_change_keeps_the_rest_and_the_mode() {
    let (dir, path) = file(r#"{"crm_token": "old", "other": "env:NAME", "jwt_secret": "j"}"#, 0o600);
    set_secret(&path, OWNER, "CRM_token", &Secret::from("new \"x\"")).unwrap();
    set_secret(&path, OWNER, "Anthropic", &Secret::from("key")).unwrap();
    assert!(remove_secret(&path, OWNER, "OTHER").unwrap());
    assert!(!remove_secret(&path, OWNER, "other").unwrap());
    let text = std::fs::read_to_string(&path).unwrap();
    let secrets = Secrets::parse(&text).unwrap();
    assert_eq!(secrets.get("crm_token").unwrap().expose(), "new \"x\"");
    assert_eq!(secrets.get("anthropic").unwrap().expose(), "key");
    assert_eq!(secrets.jwt_secret().unwrap().expose(), "j");
    assert!(secrets.get("other").is_none());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!dir.path().join("secrets.json.new").exists());
}

#[test]
fn a_refused_change_leaves_the_file_as_it_is() {
    let (_dir, path) = file(GOOD_SECRETS, 0o600);
    for (name, value, code) in [
        ("jwt_secret", "x", "platform_secret"),
        ("JWT_SECRET", "x", "platform_secret"),
        ("LD_PRELOAD", "x", "secret_reserved_name"),
        ("a b", "x", "secret_bad_name"),
        ("fine", "", "secret_empty"),
        ("fine", "a\0b", "secret_contains_nul"),
    ] {
        let error = set_secret(&path, OWNER, name, &Secret::from(value)).unwrap_err();
        assert_eq!(error.code(), code);
    }
    assert_eq!(remove_secret(&path, OWNER, "database_url").unwrap_err().code(), "platform_secret");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), GOOD_SECRETS);
}

#[test]
fn what_is_missing_is_made_once_and_what_is_there_is_kept() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("secrets.json");
    let made = generate_missing(&path, OWNER, "sqlite:systemprompt.db").unwrap();
    assert_eq!(made, ["jwt_secret", "oauth_at_rest_pepper", "manifest_signing_secret_seed", "database_url"]);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let first = std::fs::read_to_string(&path).unwrap();
    let secrets = Secrets::parse(&first).unwrap();
    assert_eq!(secrets.platform_faults(), []);
    assert_eq!(secrets.missing_platform(), []);
    assert_eq!(URL_SAFE_NO_PAD.decode(secrets.jwt_secret().unwrap().expose()).unwrap().len(), 32);
    assert!(secrets.jwt_secret().unwrap().expose() != secrets.oauth_at_rest_pepper().unwrap().expose());
    assert!(generate_missing(&path, OWNER, "sqlite:other").unwrap().is_empty());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), first);

    let (_dir, path) = file(r#"{"JWT_SECRET": "kept", "crm": "c", "database_url": null}"#, 0o600);
    let made = generate_missing(&path, OWNER, "sqlite:x").unwrap();
    assert_eq!(made, ["oauth_at_rest_pepper", "manifest_signing_secret_seed", "database_url"]);
    let secrets = Secrets::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(secrets.jwt_secret().unwrap().expose(), "kept");
    assert_eq!(secrets.get("crm").unwrap().expose(), "c");
}

#[test]
fn writers_do_not_lose_each_other_s_changes() {
    let (_dir, path) = file("{}", 0o600);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let path = &path;
            scope.spawn(move || {
                for n in 0..8 {
                    set_secret(path, OWNER, &format!("k_{worker}_{n}"), &Secret::from("v")).unwrap();
                }
            });
        }
    });
    let secrets = Secrets::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(secrets.custom_names().len(), 32);
}
