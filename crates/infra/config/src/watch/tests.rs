use super::*;
use crate::testing::{Folder, RULES_HOOK};

async fn next(watch: &mut Watch) -> Reload {
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
    let Reload::Accepted(fresh) = next(&mut watch).await else { panic!("refused") };
    assert_eq!(fresh.profile.server.drain_seconds, 7);
    assert_eq!(fresh.changed_keys(&loaded), ["server.drain_seconds"]);

    // The services folder did not exist when the watch began.
    folder.write("services/mcp/a.yaml", "mcp_servers: {x: {type: intern, binary: demo}}\n");
    let Reload::Refused(findings) = next(&mut watch).await else { panic!("accepted") };
    assert_eq!((findings[0].code, findings[0].line, findings[0].column), ("invalid_value", 1, 25));

    folder.write("services/mcp/a.yaml", "mcp_servers: {x: {type: internal, binary: demo}}\n");
    let Reload::Accepted(fresh) = next(&mut watch).await else { panic!("refused") };
    assert!(fresh.services.mcp_servers.contains_key("x"));

    watch.trigger().reload();
    assert!(matches!(next(&mut watch).await, Reload::Accepted(_)));
    assert!(tasks.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_change_between_load_and_watch_is_seen() {
    let folder = Folder::new();
    let loaded = folder.load().unwrap();
    folder.profile(&format!("{RULES_HOOK}name: later\n"));
    let tasks = Tasks::default();
    let mut watch = Watch::start(folder.options(), &loaded, &tasks);
    let Reload::Accepted(fresh) = next(&mut watch).await else { panic!("refused") };
    assert_eq!(fresh.profile.name, "later");
    assert!(tasks.drain(Duration::from_secs(5)).await);
}
