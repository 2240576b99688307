use super::*;
use crate::interpolate::Columns;

fn parse(text: &str) -> Result<Document, Box<Diagnostic>> {
    Document::parse(Path::new("f.yaml"), text, text, &Columns::default())
}

#[test]
fn values_and_keys_know_their_line_and_column() {
    let document = parse("server:\n  port: 99\n  list: [a, {b: ü, c: 1}]\n").unwrap();
    let at = |path: &[Step]| {
        let found = document.locate(Diagnostic::error("x", "x"), path);
        (found.line, found.column, found.key)
    };
    assert_eq!(at(&steps!["server", "port"]), (2, 9, "server.port".into()));
    assert_eq!(at(&steps!["server", "list", 1, "c"]), (3, 23, "server.list[1].c".into()));
    assert_eq!(at(&steps!["server", "absent"]), (1, 1, "server.absent".into()));
    let key = document.locate_key(Diagnostic::error("x", "x"), &steps!["server", "port"]);
    assert_eq!((key.line, key.column), (2, 3));
}

#[test]
fn a_second_document_and_a_second_key_are_named() {
    let two = parse("a: 1\n---\nb: 2\n").err().unwrap();
    assert!(two.message.contains("one document a file"), "{two}");
    let key = parse("a: 1\nb: 2\na: 3\n").err().unwrap();
    assert_eq!(key.message, "the key `a` stands twice in one mapping");
}

#[test]
fn what_no_setting_needs_is_refused() {
    let deep = format!("a: {}{}", "[".repeat(64), "]".repeat(64));
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
        d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n\
        g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g,*g,*g]\n";
    for (text, line) in [
        ("a: 1\nb: 2\na: 3\n", 3),
        ("a: 1\n b: 2\n", 2),
        ("a: [1, 2\n", 2),
        ("- a\n- b\n", 1),
        ("just text", 1),
        ("a: 1\n---\nb: 2\n", 2),
        (deep.as_str(), 1),
        (bomb, 5),
    ] {
        let finding = parse(text).err().unwrap_or_else(|| panic!("accepted {text}"));
        assert!(finding.is_error() && !finding.message.is_empty());
        assert!(finding.line.abs_diff(line) <= 2, "{text}: {finding}");
        assert!(!finding.message.contains(" line "), "{finding}");
    }
}

#[test]
fn an_empty_file_is_an_empty_mapping() {
    for text in ["", "\n", "# only a comment\n", "---\n"] {
        assert_eq!(parse(text).unwrap().root.to_json(), serde_json::json!({}), "{text:?}");
    }
}

#[test]
fn anchors_and_merge_keys_are_expanded() {
    let document = parse("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n").unwrap();
    assert_eq!(document.root.to_json()["use"], serde_json::json!({"x": 1, "y": 3}));
}
