use super::*;
use crate::secrets::file::generate_missing;
use crate::testing::Folder;
use std::os::unix::fs::PermissionsExt;

fn fresh() -> Folder {
    let folder = Folder::new();
    std::fs::remove_dir_all(folder.dir.path().join("profiles")).unwrap();
    folder
}

#[test]
fn a_new_profile_names_its_schema_passes_it_and_loads() {
    for (demo, port) in [(false, None), (true, Some(9191))] {
        let folder = fresh();
        let location = folder.location();
        let file =
            init_profile(&location, &NewProfile { database: DatabaseKind::Sqlite, port, demo }).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let reference = text.lines().next().unwrap().split_once("$schema=").unwrap().1;
        let schema_file = file.parent().unwrap().join(reference);
        let schema: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(schema_file).unwrap()).unwrap();
        assert_eq!(schema, profile_schema());
        let value: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        assert!(validator.is_valid(&value));
        assert!(!validator.is_valid(&serde_json::json!({"sever": {}})));

        let secrets = location.default_secrets_file();
        generate_missing(&secrets, crate::profile::secrets::SecretsFileMode::Owner, "sqlite:systemprompt.db")
            .unwrap();
        let loaded = folder.load().unwrap();
        assert_eq!(loaded.profile.server.port, port.unwrap_or(8080));
        assert_eq!(loaded.profile.gateway.route_for("claude-demo-large").is_some(), demo);
        assert!(loaded.profile.gateway.route_for("other").is_none());
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        let mode = location.profile_dir().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}

#[test]
fn an_existing_profile_is_kept() {
    let folder = Folder::new();
    let before = std::fs::read_to_string(folder.location().profile_file()).unwrap();
    let new = NewProfile { database: DatabaseKind::Postgres, port: None, demo: true };
    assert!(matches!(init_profile(&folder.location(), &new), Err(InitError::Exists(_))));
    assert_eq!(std::fs::read_to_string(folder.location().profile_file()).unwrap(), before);
}
