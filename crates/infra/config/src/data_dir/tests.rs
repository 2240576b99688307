use super::*;
use std::collections::BTreeMap;
use tempfile::TempDir;

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn make(dir: &Path, profile: &str) {
    let folder = dir.join("profiles").join(profile);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("profile.yaml"), "").unwrap();
}

#[test]
fn the_folder_is_flag_then_variable_then_working_folder_then_user_folder() {
    let work = TempDir::new().unwrap();
    let work = work.path();
    let found = |flag: Option<&Path>, vars: &[(&str, &str)]| {
        ProfileLocation::discover(flag, None, work, &env(vars)).map(|l| l.data_dir)
    };
    assert_eq!(found(None, &[]), Err(LocationError::NoHome));
    assert_eq!(found(None, &[("HOME", "/h")]).unwrap(), Path::new("/h/.local/share/systemprompt"));
    let xdg = [("HOME", "/h"), ("XDG_DATA_HOME", "/x")];
    assert_eq!(found(None, &xdg).unwrap(), Path::new("/x/systemprompt"));
    std::fs::create_dir(work.join(".systemprompt")).unwrap();
    assert_eq!(found(None, &xdg).unwrap(), work.join(".systemprompt"));
    assert_eq!(found(None, &[("SYSTEMPROMPT_DATA_DIR", "/v")]).unwrap(), Path::new("/v"));
    let flag = found(Some(Path::new("sub")), &[("SYSTEMPROMPT_DATA_DIR", "/v")]).unwrap();
    assert_eq!(flag, work.join("sub"));
    make(&work.join(".systemprompt"), "default");
    assert_eq!(found(Some(work), &[]).unwrap(), work.join(".systemprompt"));
}

#[test]
fn the_profile_is_the_named_one_or_the_only_one() {
    let dir = TempDir::new().unwrap();
    let found = |flag: Option<&str>, vars: &[(&str, &str)]| {
        ProfileLocation::discover(Some(dir.path()), flag, Path::new("/"), &env(vars)).map(|l| l.profile_name)
    };
    assert_eq!(found(None, &[]).unwrap(), "default");
    make(dir.path(), "staging");
    assert_eq!(found(None, &[]).unwrap(), "staging");
    make(dir.path(), "live");
    assert_eq!(found(None, &[]), Err(LocationError::Ambiguous(vec!["live".into(), "staging".into()])));
    assert_eq!(found(None, &[("SYSTEMPROMPT_PROFILE", "live")]).unwrap(), "live");
    assert_eq!(found(Some("staging"), &[("SYSTEMPROMPT_PROFILE", "live")]).unwrap(), "staging");
    make(dir.path(), "default");
    assert_eq!(found(None, &[]).unwrap(), "default");
    assert_eq!(found(Some("../x"), &[]), Err(LocationError::BadName("../x".into())));
}
