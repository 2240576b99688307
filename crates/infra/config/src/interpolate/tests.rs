use super::*;
use std::collections::BTreeMap;

fn run(text: &str) -> Result<(String, Columns), Vec<Diagnostic>> {
    let env: BTreeMap<String, String> =
        [("A", "one"), ("EMPTY", ""), ("ML", "a\nb"), ("SYSTEMPROMPT_SECRET_X", "hidden")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
    interpolate(Path::new("p.yaml"), text, &env)
}

#[test]
fn every_form_is_replaced() {
    for (text, want) in [
        ("a: ${A}", "a: one"),
        ("${A}${A}x", "oneonex"),
        ("a: ${NONE:-two}", "a: two"),
        ("a: ${EMPTY:-two}", "a: two"),
        ("a: ${EMPTY}", "a: "),
        ("a: ${NONE:-}", "a: "),
        ("a: ${NONE:-http://x:1/}", "a: http://x:1/"),
        ("a: $${A} $A", "a: ${A} $A"),
        ("# ${NONE}\nb: ${A}", "# ${NONE}\nb: one"),
    ] {
        assert_eq!(run(text).unwrap().0, want);
    }
}

#[test]
fn a_bad_reference_names_its_place() {
    for (text, code, column) in [
        ("a: ${NONE}", "variable_unset", 4),
        ("ü: x ${1A}", "variable_syntax", 6),
        ("a: ${A", "variable_syntax", 4),
        ("a: ${}", "variable_syntax", 4),
        ("a: ${ML}", "variable_value", 4),
        ("a: ${SYSTEMPROMPT_SECRET_X}", "secret_in_profile", 4),
    ] {
        let findings = run(&format!("first: 1\n{text}\n")).unwrap_err();
        let finding = &findings[0];
        assert_eq!((finding.code, finding.line, finding.column), (code, 2, column), "{finding}");
        assert!(!finding.to_string().contains("hidden"));
    }
    assert_eq!(run("a: ${NONE}\nb: ${NIL}\n").unwrap_err().len(), 2);
}

#[test]
fn columns_point_into_the_file_and_not_into_the_result() {
    let (out, columns) = run("x: [${A}, ${A}, here]").unwrap();
    assert_eq!(out, "x: [one, one, here]");
    assert_eq!(columns.original(1, 2), 2);
    assert_eq!(columns.original(1, 5), 5);
    assert_eq!(columns.original(1, 10), 11);
    assert_eq!(columns.original(1, 15), 17);
    assert_eq!(columns.original(2, 15), 15);
}
