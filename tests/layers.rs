//! The rooms import in one direction, as the table in `docs/ARCHITECTURE.md` says, and what only
//! one room may know is named in no other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What is named only there, tests aside.
const HOMES: [(&[&str], &[&str]); 15] = [
    (&["rusqlite"], &["store"]),
    (&["zstd"], &["chunk"]),
    (&["fastcdc"], &["chunk"]),
    (&["ring"], &["chunk", "env"]),
    (&["ed25519_dalek"], &["keys"]),
    (&["hpke"], &["keys"]),
    (&["blake3"], &["types", "codec", "chunk"]),
    (&["rand"], &["env"]),
    (&["std", "fs"], &["env", "mount"]),
    (&["SystemTime", "now"], &["env"]),
    (&["iroh"], &["net"]),
    (&["tokio"], &["net", "engine"]),
    (&["diffy"], &["engine"]),
    (&["fuser"], &["mount"]),
    (&["libc"], &["mount"]),
];

/// Room by room, what it may use.
type Table = BTreeMap<String, BTreeSet<String>>;

/// A path as written, group by group taken apart: `a::{b, c::d}` gives two.
type Named = Vec<String>;

/// A source file: its room, the modules above its content, its text.
struct Source {
    path: PathBuf,
    room: String,
    depth: usize,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Reads the table whose rows say: room, what it owns, what it uses.
fn table(markdown: &str) -> Table {
    let mut table = Table::new();
    for line in markdown.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [room, _, uses] = cells[..] else { continue };
        let Some(room) = room.strip_prefix('`').and_then(|room| room.strip_suffix('`')) else {
            continue;
        };
        let room = room.trim_start_matches("src/").trim_end_matches('/').to_owned();
        let uses = match uses {
            "–" => BTreeSet::new(),
            "all above" => table.keys().cloned().collect(),
            some => some.split(',').map(|name| name.trim().to_owned()).collect(),
        };
        table.insert(room, uses);
    }
    table
}

fn architecture() -> Table {
    let path = root().join("docs/ARCHITECTURE.md");
    table(&std::fs::read_to_string(path).expect("the architecture is described"))
}

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(root().join("src")).expect("src is there") {
        let path = entry.expect("readable").path();
        let room = path.file_stem().expect("a name").to_string_lossy().into_owned();
        if room != "lib" {
            collect(&path, &room, 1, &mut sources);
        }
    }
    collect(&root().join("mount/src"), "mount", 0, &mut sources);
    assert!(sources.len() > 10, "the sources are found");
    sources
}

fn collect(path: &Path, room: &str, depth: usize, into: &mut Vec<Source>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("readable") {
            let path = entry.expect("readable").path();
            let is_mod = path.ends_with("mod.rs");
            collect(&path, room, depth + usize::from(!is_mod), into);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        let text = std::fs::read_to_string(path).expect("sources are text");
        into.push(Source { path: path.to_owned(), room: room.to_owned(), depth, text });
    }
}

/// The text before the tests at its end; nothing of a file that is all tests.
fn without_tests(source: &Source) -> &str {
    if source.path.components().any(|part| part.as_os_str() == "tests")
        || source.path.ends_with("tests.rs")
    {
        return "";
    }
    source.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

/// Words and signs, without comments, strings and characters.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let taken = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |at| at + 2),
            '"' => quoted(rest),
            '\'' => character(rest),
            'r' if rest.starts_with("r\"") || rest.starts_with("r#\"") => {
                let hashes = if rest.starts_with("r#") { "\"#" } else { "\"" };
                let start = 1 + hashes.len();
                rest[start..].find(hashes).map_or(rest.len(), |at| start + at + hashes.len())
            }
            first if is_word(first) => {
                let len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                tokens.push(rest[..len].to_owned());
                len
            }
            ':' if rest.starts_with("::") => {
                tokens.push("::".to_owned());
                2
            }
            first => {
                if !first.is_whitespace() {
                    tokens.push(first.to_string());
                }
                first.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    tokens
}

/// The length of the string that `text` starts with.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

/// The length of the character that `text` starts with, or of a lifetime's tick.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => {
            text[2..].get(1..).and_then(|rest| rest.find('\'')).map_or(1, |at| at + 4)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// Every path that the text names.
fn named(text: &str) -> Vec<Named> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_word(&tokens[at]) {
            at = path_at(&tokens, at, &[], &mut found);
        } else {
            at += 1;
        }
    }
    found
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_') || token == "*"
}

/// Reads the path, or the tree of paths, that starts at `at`; returns where it ends.
fn path_at(tokens: &[String], mut at: usize, prefix: &[String], found: &mut Vec<Named>) -> usize {
    let token = |at: usize| tokens.get(at).map_or("", String::as_str);
    let mut path = prefix.to_vec();
    loop {
        path.push(tokens[at].clone());
        at += 1;
        if token(at) != "::" {
            break;
        }
        at += 1;
        if token(at) == "{" {
            at += 1;
            while !matches!(token(at), "}" | "") {
                at = if is_word(token(at)) { path_at(tokens, at, &path, found) } else { at + 1 };
            }
            return at + 1;
        }
        if !is_word(token(at)) {
            break;
        }
    }
    found.push(path);
    at
}

/// The rooms that a source leans on, its own aside.
fn used_rooms(source: &Source, rooms: &Table) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for path in named(&source.text) {
        let supers = path.iter().take_while(|word| *word == "super").count();
        let target = match path[0].as_str() {
            "tidefs" if source.room == "mount" => path.get(1),
            "crate" if source.room != "mount" => path.get(1),
            "super" if source.room != "mount" && supers >= source.depth => path.get(supers),
            _ => None,
        };
        used.extend(target.filter(|room| rooms.contains_key(*room)).cloned());
    }
    used.remove(&source.room);
    used
}

/// What is wrong with a source, by the table.
fn complaints(source: &Source, table: &Table) -> Vec<String> {
    let Some(allowed) = table.get(&source.room) else {
        return vec![format!("{} is in a room that the table lacks", source.path.display())];
    };
    let used = used_rooms(source, table);
    let wrong = used.difference(allowed);
    wrong.map(|room| format!("{} ({}) uses {room}", source.path.display(), source.room)).collect()
}

fn sample(room: &str, text: &str) -> Source {
    Source { path: "sample.rs".into(), room: room.into(), depth: 2, text: text.into() }
}

#[test]
fn rooms_use_only_what_the_table_says() {
    let table = architecture();
    let wrong: Vec<String> = sources().iter().flat_map(|s| complaints(s, &table)).collect();
    assert!(wrong.is_empty(), "against docs/ARCHITECTURE.md:\n{}", wrong.join("\n"));
}

#[test]
fn the_table_names_every_room_once_and_only_rooms_that_exist() {
    let table = architecture();
    let rooms: BTreeSet<String> = sources().into_iter().map(|source| source.room).collect();
    assert_eq!(table.keys().cloned().collect::<BTreeSet<_>>(), rooms);
    assert!(table.values().flatten().all(|used| table.contains_key(used)), "{table:?}");
}

#[test]
fn what_belongs_to_one_room_is_named_in_no_other() {
    let mut wrong = Vec::new();
    for source in sources() {
        let named = named(without_tests(&source));
        for (what, homes) in HOMES {
            let used = named.iter().any(|path| match what {
                [library] => path[0] == *library && path.len() > 1,
                _ => path.windows(what.len()).any(|part| part == what),
            });
            if used && !homes.contains(&source.room.as_str()) {
                wrong.push(format!("{} names {}", source.path.display(), what.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_outside_mount_is_unsafe() {
    for source in sources().iter().filter(|source| source.room != "mount") {
        let has = tokens(&source.text).iter().any(|token| token == "unsafe");
        assert!(!has, "{} is unsafe", source.path.display());
    }
}

#[test]
fn an_upward_import_is_found_however_it_is_written() {
    let table =
        table("| `src/low` | a | – |\n| `src/high` | b | low |\n| `src/top` | c | all above |");
    let wrong = [
        "use crate::high::Thing;",
        "use crate::{low, high};",
        "use crate::{low::{A, B}, high::{C}};",
        "fn f() { crate::high::go() }",
        "use super::super::high::Thing;",
        "fn f<'a>(c: &'a char) -> bool { *c == '\"' || crate::high::X == \"\" }",
    ];
    for text in wrong {
        assert_eq!(complaints(&sample("low", text), &table).len(), 1, "{text}");
        assert!(complaints(&sample("top", text), &table).is_empty(), "{text}");
    }
    let right = [
        "use crate::low::Thing;",
        "// use crate::high::Thing;",
        "const A: &str = \"crate::high::Thing \\\" crate::high::X\";",
        "use super::high::Thing;",
        "use other::high::Thing;",
    ];
    for text in right {
        assert_eq!(complaints(&sample("low", text), &table), Vec::<String>::new(), "{text}");
    }
}
