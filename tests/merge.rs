//! The merge room against the model: the committed vectors, and any that `TIDEFS_HISTORIES` names
//! (`scripts/suite-merge` makes them).

#[path = "merge/history.rs"]
mod history;
#[path = "merge/replica.rs"]
mod replica;

use std::path::Path;

use history::History;

fn check(path: &Path) -> usize {
    let text = std::fs::read_to_string(path).expect("the histories are there");
    for line in text.lines() {
        let history = History::parse(line).expect("a history");
        if let Err(error) = history.check() {
            panic!("{}: {error:?}", history.name);
        }
    }
    text.lines().count()
}

#[test]
fn every_vector_of_the_model_has_the_models_tree() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/merge/core.jsonl");
    assert!(check(&vectors) >= 97, "no vector was lost");
}

#[test]
#[ignore = "scripts/suite-merge generates the histories"]
fn generated_histories_have_the_models_tree() {
    let path = std::env::var("TIDEFS_HISTORIES").expect("TIDEFS_HISTORIES names a file");
    assert!(check(Path::new(&path)) > 0, "there are histories");
}
