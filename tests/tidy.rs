//! Reads `src/` as text and fails where the house rules are broken: a layer that names a higher one, a module without
//! an opening doc, a file that is too long, work left unfinished.
//!
//! It sees only paths that are written out (`crate::engine::…`); that is why imports are.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers, lowest first: a module names modules of lower levels, and itself. Roots that are missing here fail.
const LEVELS: [&[&str]; 7] = [
    &["types", "limits", "codec"],
    &["consensus", "gossip", "ring", "queue"],
    &["storage", "index", "http", "security", "machine"],
    &["engine"],
    &["transport", "api", "admin", "background", "config", "operator", "sim"],
    &["node"],
    &["main", "bin", "lib", "manual"],
];

/// Pairs within one level that are allowed, each one way only.
const NEIGHBOURS: [(&str, &[&str]); 6] = [
    ("codec", &["types", "limits"]),
    ("types", &["limits"]),
    ("index", &["storage"]),
    ("ring", &["queue"]),
    // Whoever has a connection has its lock too.
    ("http", &["security"]),
    // The doctor judges with the options that the node would start with.
    ("operator", &["config"]),
];

const LINES_MAX: usize = 700;

fn level(module: &str) -> Option<usize> {
    LEVELS.iter().position(|names| names.contains(&module))
}

fn may_name(module: &str, other: &str) -> bool {
    let neighbour = NEIGHBOURS.iter().any(|(from, to)| *from == module && to.contains(&other));
    module == other || neighbour || level(other) < level(module)
}

/// Every Rust file below `folder`, with the module of the first level that it belongs to.
fn sources(folder: &Path, found: &mut Vec<(String, PathBuf)>) {
    for entry in fs::read_dir(folder).expect("a folder of the sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let inside = path.strip_prefix(root()).expect("below src").with_extension("");
            let module = inside.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
            found.push((module, path));
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The names that follow `crate::` in code; doc links and comments may point anywhere.
fn named(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default();
    let roots = code.split("crate::").skip(1);
    roots.map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()).collect()
}

fn complaints(module: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if level(module).is_none() {
        found.push(format!("1: `{module}` is not in the list of layers; say in tests/tidy.rs where it belongs"));
    }
    if !text.starts_with("//!") {
        found
            .push("1: no opening doc (//!): what is it for, what does it promise, what does it leave to others".into());
    }
    if text.lines().count() > LINES_MAX {
        found.push(format!("{LINES_MAX}: {} lines; the limit is {LINES_MAX}", text.lines().count()));
    }
    for (index, line) in text.lines().enumerate() {
        // Written in two parts, or this file would find itself if it moved.
        for word in [concat!("FIX", "ME"), concat!("todo", "!("), concat!("unimplemented", "!(")] {
            if line.contains(word) {
                found.push(format!("{}: unfinished: {word}", index + 1));
            }
        }
        if line.split("//").next().is_some_and(|code| code.contains("crate::{")) {
            found
                .push(format!("{}: write the paths after `crate::` out, so that the layer check sees them", index + 1));
        }
        for other in named(line).iter().filter(|other| level(other).is_some() && !may_name(module, other)) {
            found.push(format!("{}: `{module}` names `{other}`, which is not below it", index + 1));
        }
    }
    found
}

#[test]
fn the_sources_keep_the_house_rules() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    assert!(files.len() > 10, "only {} source files found", files.len());
    let mut all = Vec::new();
    for (module, path) in files {
        let text = fs::read_to_string(&path).expect("a readable source");
        all.extend(complaints(&module, &text).iter().map(|what| format!("{}:{what}", path.display())));
    }
    assert!(all.is_empty(), "\n{}\n", all.join("\n"));
}

#[test]
fn a_broken_rule_is_seen() {
    let check = |module: &str, text: &str| complaints(module, text).len();
    assert_eq!(check("consensus", "//! Fine.\nuse crate::types::Term;\nuse crate::consensus::Message;\n"), 0);
    assert_eq!(check("consensus", "//! Upwards.\nuse crate::engine::Role;\n"), 1);
    assert_eq!(check("consensus", "//! Sideways.\nfn f() -> crate::gossip::Directory {}\n"), 1);
    assert_eq!(check("codec", "//! Sideways, allowed.\nuse crate::types::Term;\n"), 0);
    assert_eq!(check("types", "//! Hidden.\nuse crate::{engine::Role};\n"), 1);
    assert_eq!(check("types", "//! A link to [`crate::engine`] in prose.\n"), 0);
    assert_eq!(check("types", "use std::fmt;\n"), 1);
    assert_eq!(check("nowhere", "//! Unknown.\n"), 1);
    assert_eq!(check("node", &format!("//! Left.\nfn f() {{ {}) }}\n", concat!("todo", "!("))), 1);
    assert_eq!(check("node", &format!("//! Long.\n{}", "\n".repeat(LINES_MAX))), 1);
}
