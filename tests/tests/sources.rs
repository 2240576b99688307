//! The project's own manifests and sources, as the architecture tests read them: packages from `cargo metadata`, files as
//! Rust tokens, so that comments, strings and code are never confused.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use serde_json::Value;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// A workspace member and what it depends on inside and outside the workspace.
#[derive(Debug)]
pub struct Package {
    pub name: String,
    /// Relative to the workspace, as `crates/infra/audit`.
    pub folder: String,
    pub dependencies: Vec<Dependency>,
}

#[derive(Debug)]
pub struct Dependency {
    pub name: String,
    /// Of `[dev-dependencies]`.
    pub is_dev: bool,
    pub features: Vec<String>,
}

/// Every member of the workspace.
pub fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages: Vec<Package> = metadata["packages"].as_array().unwrap().iter().map(package).collect();
    assert!(packages.len() > 10, "the workspace has more members than {}", packages.len());
    packages
}

fn package(value: &Value) -> Package {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let manifest = PathBuf::from(text(&value["manifest_path"]));
    let dependency = |value: &Value| Dependency {
        name: text(&value["name"]),
        is_dev: value["kind"] == "dev",
        features: value["features"].as_array().unwrap().iter().map(text).collect(),
    };
    Package {
        name: text(&value["name"]),
        folder: relative(manifest.parent().unwrap()),
        dependencies: value["dependencies"].as_array().unwrap().iter().map(dependency).collect(),
    }
}

/// One source file.
pub struct File {
    /// Relative to the workspace, with slashes.
    pub path: String,
    pub text: String,
    /// Without items under `#[cfg(test)]`.
    pub tokens: Vec<TokenTree>,
}

/// A place in a file, printed as `path:line`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub path: String,
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path, self.line)
    }
}

/// The product's sources (`crates/*/*/src`), test modules left out.
pub fn product() -> Vec<File> {
    let mut paths = Vec::new();
    collect(&root().join("crates"), &mut paths);
    let files: Vec<File> = paths
        .iter()
        .map(|path| (relative(path), path))
        .filter(|(path, _)| path.contains("/src/") && !is_test_file(path))
        .map(|(path, full)| File::read(path, full))
        .collect();
    assert!(files.len() > 20, "the product has more files than {}", files.len());
    files
}

/// `foo/tests.rs` and `foo/tests/*.rs`, which a `#[cfg(test)] mod tests;` names.
fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            collect(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/")
}

impl File {
    fn read(path: String, full: &Path) -> Self {
        let text = std::fs::read_to_string(full).unwrap();
        Self::parse(path, text)
    }

    /// A file from its text.
    pub fn parse(path: String, text: String) -> Self {
        let stream: TokenStream = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        let tokens = without_tests(stream);
        Self { path, text, tokens }
    }

    /// A place in this file.
    pub fn at(&self, line: usize) -> Place {
        Place { path: self.path.clone(), line }
    }

    /// Calls `visit` with every run of sibling tokens, the outermost first.
    pub fn each_group(&self, mut visit: impl FnMut(&[TokenTree])) {
        walk(&self.tokens, &mut visit);
    }

    /// The string literals given to macro `name`, as `name!("…")`, with their lines.
    pub fn macro_literals(&self, name: &str) -> Vec<(usize, Result<String, String>)> {
        let mut found = Vec::new();
        self.each_group(|tokens| {
            for window in tokens.windows(3) {
                if let [TokenTree::Ident(ident), TokenTree::Punct(bang), TokenTree::Group(group)] = window
                    && ident == name
                    && bang.as_char() == '!'
                {
                    let line = ident.span().start().line;
                    found.push((line, literal(group.stream())));
                }
            }
        });
        found.sort_by_key(|(line, _)| *line);
        found
    }

    /// Every string literal with its line.
    pub fn strings(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        self.each_group(|tokens| {
            for token in tokens {
                if let TokenTree::Literal(literal) = token
                    && let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string())
                {
                    found.push((literal.span().start().line, text.value()));
                }
            }
        });
        found
    }

    /// The lines where the identifiers and punctuation of `pattern` follow each other, as `"tokio :: spawn"`.
    pub fn find(&self, pattern: &str) -> Vec<usize> {
        let wanted: Vec<String> =
            pattern.parse::<TokenStream>().unwrap().into_iter().map(|t| t.to_string()).collect();
        let mut found = Vec::new();
        self.each_group(|tokens| {
            for window in tokens.windows(wanted.len()) {
                if window.iter().zip(&wanted).all(|(token, text)| is(token, text)) {
                    found.extend(window.first().map(|token| token.span().start().line));
                }
            }
        });
        found
    }
}

fn is(token: &TokenTree, text: &str) -> bool {
    match token {
        TokenTree::Ident(ident) => ident == text,
        TokenTree::Punct(punct) => text.len() == 1 && text.starts_with(punct.as_char()),
        TokenTree::Group(_) | TokenTree::Literal(_) => false,
    }
}

fn walk(tokens: &[TokenTree], visit: &mut impl FnMut(&[TokenTree])) {
    visit(tokens);
    for token in tokens {
        if let TokenTree::Group(group) = token {
            let inner: Vec<TokenTree> = group.stream().into_iter().collect();
            walk(&inner, visit);
        }
    }
}

/// The value of a stream that is one string literal (a comma may follow), or the stream as text.
fn literal(stream: TokenStream) -> Result<String, String> {
    let text = stream.to_string();
    match stream.into_iter().collect::<Vec<_>>().as_slice() {
        [TokenTree::Literal(literal)] | [TokenTree::Literal(literal), TokenTree::Punct(_)] => {
            syn::parse_str::<syn::LitStr>(&literal.to_string()).map(|lit| lit.value()).map_err(|_| text)
        }
        _ => Err(text),
    }
}

/// The tokens without items that stand under `#[cfg(test)]` or `#[test]`: the attribute up to the item's braces or semicolon.
fn without_tests(stream: TokenStream) -> Vec<TokenTree> {
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_test_attribute(&tokens[at..]) {
            at += 2;
            while at < tokens.len() && !ends_item(&tokens[at]) {
                at += 1;
            }
        } else {
            kept.push(match &tokens[at] {
                TokenTree::Group(group) => {
                    let inner = without_tests(group.stream()).into_iter().collect();
                    let mut same = proc_macro2::Group::new(group.delimiter(), inner);
                    same.set_span(group.span());
                    TokenTree::Group(same)
                }
                other => other.clone(),
            });
        }
        at += 1;
    }
    kept
}

fn is_test_attribute(tokens: &[TokenTree]) -> bool {
    let [TokenTree::Punct(hash), TokenTree::Group(group), ..] = tokens else { return false };
    hash.as_char() == '#'
        && matches!(group.stream().to_string().replace(' ', "").as_str(), "cfg(test)" | "test")
}

fn ends_item(token: &TokenTree) -> bool {
    match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Ident(_) | TokenTree::Literal(_) => false,
    }
}

#[test]
fn literals_are_found_in_every_spelling_with_their_lines() {
    let text = r##"
        fn a() {
            on!(db, pool => sqlx::query(sql!("SELECT \"a\" \
                FROM t")).fetch(pool));
            // sql!("a comment")
            let _ = "sql!(\"a string\")";
            sql!(
                r#"SELECT "b" FROM t"#,
            );
        }
        #[cfg(test)]
        mod tests { fn b() { sql!("of a test"); } }
        fn c() { sql!(name) }
    "##;
    let file = File::parse("a.rs".to_owned(), text.to_owned());
    let found = file.macro_literals("sql");
    let expected = [
        (3, Ok("SELECT \"a\" FROM t".to_owned())),
        (7, Ok("SELECT \"b\" FROM t".to_owned())),
        (13, Err("name".to_owned())),
    ];
    assert_eq!(found, expected);
}

#[test]
fn token_patterns_are_found_whatever_their_spacing() {
    let text = "fn a() { tokio ::spawn(x); }\n// tokio::spawn\nfn b() { if c { tokio::\nspawn(y) } }";
    let file = File::parse("a.rs".to_owned(), text.to_owned());
    assert_eq!(file.find("tokio :: spawn"), [1, 3]);
}
