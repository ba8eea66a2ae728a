//! The tree keeps to its layers and habits. What a compiler does not check is checked here, on the text of the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// Most lines of a file.
const LINES_MAX: usize = 600;

/// The layers, lowest first; those of one line stand side by side and do not import each other.
const LAYERS: [&[&str]; 15] = [
    &["model"],
    &["config"],
    &["wire"],
    &["seal", "fragment", "mime"],
    &["core"],
    &["store"],
    &["net"],
    // Below the actors, time is an argument.
    &["clock"],
    &["actors"],
    &["mail"],
    &["console"],
    &["cli"],
    // In no ordinary build.
    &["fuzzing"],
    &["lib"],
    &["main"],
];

/// Words that brains never name.
const CORE_FORBIDDEN: [&str; 13] = [
    "actix",
    "tokio",
    "libp2p::",
    "std::fs",
    "std::net",
    "std::thread",
    "Instant",
    "SystemTime",
    "rand::",
    "getrandom",
    "HashMap",
    "HashSet",
    "crate::clock",
];

/// Crates that only one layer names.
const ONLY_PLACE: [(&str, &str); 12] = [
    ("sequoia_openpgp", "seal"),
    ("reed_solomon_erasure", "fragment"),
    ("sled", "store"),
    ("libp2p", "net"),
    ("libp2p_tls", "net"),
    ("axum", "net"),
    ("hyper", "net"),
    ("hyper_util", "net"),
    ("rustls", "net"),
    ("tokio_rustls", "net"),
    ("tar", "store"),
    ("prometheus_client", "console"),
];

/// Parts of `actors/` that every actor may import: they are no actors.
const ACTORS_SHARED: [&str; 17] = [
    "shell",
    "read_entries",
    "beside",
    "remover",
    "directory",
    "event_log",
    "identity",
    "spool",
    "presealer",
    "sealed_file",
    "fetch_place",
    "serve_parts",
    "serve_together",
    "replay",
    "allowance",
    "neighbours",
    "peer_api",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Every file below `folder` with this ending, by its path from the root.
fn files(folder: &str, ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                let name = path.strip_prefix(root()).unwrap_or(&path).to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty() || ending != "rs", "no files in {folder}");
    found
}

/// The lines of a file that are code: without comments and the texts in quotes.
fn code(text: &str) -> Vec<String> {
    text.lines().map(|line| without_texts(line.split_once("//").map_or(line, |(before, _)| before))).collect()
}

fn without_texts(line: &str) -> String {
    line.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

/// Whether `word` stands in `line` and is not a part of a longer word.
fn names(line: &str, word: &str) -> bool {
    let joins = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        !joins(line[..at].chars().last()) && (word.ends_with(':') || !joins(line[at + word.len()..].chars().next()))
    })
}

/// `src/core/fetch/plan.rs` is in the layer `core`.
fn layer_of(path: &str) -> &str {
    let below = path.strip_prefix("src/").unwrap_or(path);
    below.split('/').next().unwrap_or(below).trim_end_matches(".rs")
}

fn height(layer: &str) -> usize {
    let found = LAYERS.iter().position(|layers| layers.contains(&layer));
    found.unwrap_or_else(|| panic!("the layer {layer} has no place in tests/tidy.rs"))
}

/// The parts after `crate::` that a file names, `use crate::{a::b, c}` taken apart.
fn imports(text: &str) -> Vec<Vec<String>> {
    let joined = code(text).join(" ");
    let mut found = Vec::new();
    for (at, _) in joined.match_indices("crate::") {
        if joined[..at].ends_with('$') {
            continue;
        }
        collect(&joined[at + "crate::".len()..], &mut Vec::new(), &mut found);
    }
    found
}

/// Reads one path, or the paths in braces, at the start of `text`; gives what is left behind it.
fn collect<'a>(text: &'a str, before: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = collect(rest, before, found).trim_start();
            match rest.strip_prefix(',') {
                Some(more) if !more.trim_start().starts_with('}') => rest = more,
                Some(more) => return more.trim_start().trim_start_matches('}'),
                None => return rest.trim_start_matches('}'),
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    before.push(text[..end].to_owned());
    let rest = match text[end..].strip_prefix("::") {
        Some(rest) if rest.starts_with(|c: char| c.is_alphabetic() || c == '{' || c == '_') => {
            collect(rest, before, found)
        }
        Some(rest) => {
            found.push(before.clone());
            rest
        }
        None => {
            found.push(before.clone());
            &text[end..]
        }
    };
    before.pop();
    rest
}

/// Fails with every line, so that all can be put right at once.
fn none(what: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{what}:\n  {}", wrong.join("\n  "));
}

#[test]
fn imports_go_down_and_never_sideways() {
    let mut wrong = Vec::new();
    for (path, text) in files("src", "rs") {
        let own = layer_of(&path);
        for import in imports(&text) {
            let other = import[0].as_str();
            let known = LAYERS.iter().any(|layers| layers.contains(&other));
            if known && other != own && height(other) >= height(own) {
                wrong.push(format!("{path} imports {}", import.join("::")));
            }
        }
    }
    none("these imports go up or sideways", &wrong);
}

#[test]
fn actors_do_not_import_each_other() {
    let mut wrong = Vec::new();
    for (path, text) in files("src/actors", "rs") {
        let own = path.trim_start_matches("src/actors/").split('/').next().unwrap().trim_end_matches(".rs");
        // The wiring of them all, and what they share.
        if own == "peer" || own == "mod" {
            continue;
        }
        for import in imports(&text).into_iter().filter(|import| import[0] == "actors" && import.len() > 1) {
            let other = import[1].as_str();
            let allowed = other == own || ACTORS_SHARED.contains(&other) || (own == "peer_api" || own == "serve_parts");
            if !allowed {
                wrong.push(format!("{path} imports {}", import.join("::")));
            }
        }
    }
    none("actors talk by messages that the wiring gives them, not by imports", &wrong);
}

#[test]
fn brains_name_no_runtime_no_disk_no_clock_and_no_chance() {
    let mut wrong = Vec::new();
    for (path, text) in files("src/core", "rs") {
        for (number, line) in code(&text).iter().enumerate() {
            for word in CORE_FORBIDDEN.iter().filter(|word| names(line, word)) {
                wrong.push(format!("{path}:{} names {word}", number + 1));
            }
        }
    }
    none("brains are plain state machines", &wrong);
}

#[test]
fn each_foreign_thing_is_named_in_one_place() {
    let mut wrong = Vec::new();
    for (path, text) in files("src", "rs") {
        for (name, place) in ONLY_PLACE.iter().filter(|(_, place)| layer_of(&path) != *place) {
            for (number, line) in code(&text).iter().enumerate() {
                if names(line, &format!("{name}::")) || names(line, &format!("use {name}")) {
                    wrong.push(format!("{path}:{} names {name}, which belongs to {place}/", number + 1));
                }
            }
        }
    }
    none("only one place names each of these crates", &wrong);
}

#[test]
fn files_are_short_enough_to_read() {
    let all = [files("src", "rs"), files("tests", "rs")].concat();
    let long = all.iter().filter(|(_, text)| text.lines().count() > LINES_MAX);
    let wrong: Vec<String> = long.map(|(path, text)| format!("{path} has {} lines", text.lines().count())).collect();
    none("at most 600 lines a file", &wrong);
}

#[test]
fn the_map_names_every_file() {
    let map = fs::read_to_string(root().join("src/architecture.md")).unwrap_or_default();
    // By its path below src/, or on the line of its folder: "`core/fetch/`: `plan`, `pull`".
    let is_named = |path: &String| {
        let below = path.trim_start_matches("src/");
        let (folder, file) = below.rsplit_once('/').unwrap_or(("", below));
        let stem = file.trim_end_matches(".rs");
        let on_line = |line: &str| line.contains(&format!("`{folder}/`")) && (stem == "mod" || names(line, stem));
        map.contains(below) || map.lines().any(on_line)
    };
    let missing = files("src", "rs").into_iter().map(|(path, _)| path).filter(|path| !is_named(path));
    none("src/architecture.md does not name these", &missing.collect::<Vec<_>>());
}

#[test]
fn no_prelude_takes_the_words_of_mail() {
    let mut wrong = Vec::new();
    for (path, text) in files("src", "rs") {
        let lines = code(&text);
        let bad = lines.iter().enumerate().filter(|(_, line)| line.contains("actix::prelude"));
        wrong.extend(bad.map(|(number, _)| format!("{path}:{}", number + 1)));
    }
    none("actix's prelude brings Message, Recipient and Context; name what is used", &wrong);
}

#[test]
fn only_tests_record_what_passes_between_peers() {
    let mut wrong = Vec::new();
    for (path, text) in files("src", "rs").into_iter().filter(|(path, _)| path != "src/net/tap.rs") {
        let bad = code(&text).into_iter().enumerate().filter(|(_, line)| line.contains("tap::install")).map(|(n, _)| n);
        wrong.extend(bad.map(|number| format!("{path}:{}", number + 1)));
    }
    none("the program itself installs no recorder (R10)", &wrong);
}

#[test]
fn every_dependency_says_what_it_is_for() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let lines: Vec<&str> = manifest.lines().collect();
    let mut wrong = Vec::new();
    let mut inside = false;
    for (number, line) in lines.iter().enumerate() {
        if line.starts_with('[') {
            inside = line.contains("dependencies");
        }
        let declares = inside && line.contains('=') && !line.starts_with('#') && !line.starts_with('[');
        if declares && !lines[number - 1].starts_with("# ") {
            wrong.push(format!("Cargo.toml:{}: {line}", number + 1));
        }
    }
    none("these dependencies have no line above them that says what they are for", &wrong);
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    let mut wrong = Vec::new();
    // Taken apart, so that this file does not find itself.
    let words: Vec<String> =
        [("/ro", "ot/"), ("/wo", "rk/"), ("/ho", "me/")].iter().map(|(a, b)| format!("{a}{b}")).collect();
    let all = [files("src", "rs"), files("src", "md"), files("tests", "rs"), files("cluster-config", "toml")].concat();
    for (path, text) in all {
        for (number, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word.as_str())) {
                wrong.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none("paths of one machine", &wrong);
}

#[test]
fn the_broken_brains_that_a_drill_is_tried_against_can_still_be_made() {
    let mut wrong = Vec::new();
    let patches = files("tests/broken", "patch");
    for (name, patch) in &patches {
        let target = patch.lines().find_map(|line| line.strip_prefix("--- a/")).unwrap_or_else(|| panic!("{name}"));
        let text = fs::read_to_string(root().join(target)).unwrap_or_else(|e| panic!("{target}: {e}"));
        for hunk in patch.split("\n@@").skip(1) {
            let lines = hunk.lines().skip(1).filter(|line| line.starts_with([' ', '-']));
            let before: Vec<&str> = lines.map(|line| &line[1..]).collect();
            let fits = text.lines().collect::<Vec<_>>().windows(before.len()).any(|lines| lines == before);
            wrong.extend((!fits).then(|| format!("{name}: {target} is not as it was; make the patch anew")));
        }
    }
    assert!(!patches.is_empty());
    none("patches that do not apply", &wrong);
}

#[test]
fn the_checks_see_what_they_look_for() {
    let found = imports("use crate::{model::{Address, ids::MailId}, wire};\nlet x = crate::net::tls::f();");
    let found: Vec<String> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["model::Address", "model::ids::MailId", "wire", "net::tls::f"]);
    assert!(names("let a: HashMap<u8, u8>;", "HashMap") && !names("MyHashMapper", "HashMap"));
    assert!(names("use tokio::time;", "tokio") && !names("tokio_rustls", "tokio"));
    assert_eq!(code("a(\"tokio\") // HashMap"), ["a(\"\")  ".trim_end().to_owned() + " "]);
    assert_eq!((layer_of("src/core/fetch/plan.rs"), layer_of("src/clock.rs")), ("core", "clock"));
}
