use super::*;
use crate::testing::{Folder, RULES_HOOK};

/// The next reading that nobody asked for.
async fn next(watch: &mut Watch<&'static str>) -> Result<Box<Loaded>, Vec<Diagnostic>> {
    let reload = asked(watch).await;
    assert!(reload.asked.is_empty(), "{:?}", reload.asked);
    reload.result
}

async fn asked(watch: &mut Watch<&'static str>) -> Reload<&'static str> {
    tokio::time::timeout(Duration::from_secs(20), watch.reloads.recv())
        .await
        .expect("a reload")
        .expect("open")
}

#[tokio::test]
async fn changes_arrive_and_bad_ones_are_refused_with_their_place() {
    let folder = Folder::new();
    let loaded = folder.load().unwrap();
    let tasks = Tasks::default();
    let mut watch = Watch::start(folder.options(), &loaded, &tasks);

    folder.profile(&format!("{RULES_HOOK}server: {{drain_seconds: 7}}\n"));
    let Ok(fresh) = next(&mut watch).await else { panic!("refused") };
    assert_eq!(fresh.profile.server.drain_seconds, 7);
    assert_eq!(fresh.changed_keys(&loaded), ["server.drain_seconds"]);

    // The services folder did not exist when the watch began.
    folder.write("services/mcp/a.yaml", "mcp_servers: {x: {type: intern, binary: demo}}\n");
    let Err(findings) = next(&mut watch).await else { panic!("accepted") };
    assert_eq!((findings[0].code, findings[0].line, findings[0].column), ("invalid_value", 1, 25));

    folder.write("services/mcp/a.yaml", "mcp_servers: {x: {type: internal, binary: demo}}\n");
    let Ok(fresh) = next(&mut watch).await else { panic!("refused") };
    assert!(fresh.services.mcp_servers.contains_key("x"));

    for name in ["ada", "bob"] {
        watch.trigger().reload(name).unwrap();
    }
    let mut names = Vec::new();
    while names.len() < 2 {
        let reload = asked(&mut watch).await;
        assert!(reload.result.is_ok());
        names.extend(reload.asked);
    }
    assert_eq!(names, ["ada", "bob"], "everyone who asked is answered, in one reading or two");
    assert!(tasks.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_change_between_load_and_watch_is_seen() {
    let folder = Folder::new();
    let loaded = folder.load().unwrap();
    folder.profile(&format!("{RULES_HOOK}name: later\n"));
    let tasks = Tasks::default();
    let mut watch = Watch::start(folder.options(), &loaded, &tasks);
    let Ok(fresh) = next(&mut watch).await else { panic!("refused") };
    assert_eq!(fresh.profile.name, "later");
    assert!(tasks.drain(Duration::from_secs(5)).await);
}
