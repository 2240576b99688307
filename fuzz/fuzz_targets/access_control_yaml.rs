//! Any text as an access-control file: no panic in reading it, checking it, or showing what is wrong with it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use miette::{GraphicalReportHandler, GraphicalTheme};
use std::path::Path;
use std::sync::LazyLock;
use systemprompt_config::AccessControlReader;

static READER: LazyLock<AccessControlReader> = LazyLock::new(AccessControlReader::default);

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Err(findings) = READER.read(Path::new("rules.yaml"), text) else { return };
    assert!(findings.errors().next().is_some());
    let mut shown = String::new();
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::none());
    for finding in &findings.0 {
        handler.render_report(&mut shown, finding).expect("a finding can be shown");
        assert!(serde_json::to_string(finding).is_ok());
    }
});
