//! Every input of `fuzz/corpus/` goes through its target, as libFuzzer would give it; and what goes wrong there is seen.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::{TARGETS, Target, seeds};
use crate::wire::laws::{encodes_and_decodes, reads_as_it_prints};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The names in a folder, ascending.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The inputs in `folder` that break a law of `target`, and how many there are in all.
fn replay(target: Target, folder: &Path) -> (Vec<String>, usize) {
    let inputs = names(folder);
    let breaks = |name: &&String| {
        let data = fs::read(folder.join(name)).unwrap();
        catch_unwind(AssertUnwindSafe(|| target(&data))).is_err()
    };
    (inputs.iter().filter(breaks).cloned().collect(), inputs.len())
}

/// Puts missing seeds into the corpus when asked to (`ROOST_BLESS=1`), and replays it.
fn replayed(name: &str) {
    let folder = root().join("corpus").join(name);
    if std::env::var_os("ROOST_BLESS").is_some() {
        fs::create_dir_all(&folder).unwrap();
        for (number, (_, bytes)) in seeds::all().iter().filter(|(of, _)| *of == name).enumerate() {
            let path = folder.join(format!("seed-{number:02}"));
            if !path.exists() {
                fs::write(path, bytes).unwrap();
            }
        }
    }
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    let (broken, count) = replay(*target, &folder);
    assert!(broken.is_empty(), "in fuzz/corpus/{name}, these break a law (what it says stands above): {broken:?}");
    assert!(count > 0, "there is nothing in fuzz/corpus/{name}");
}

/// As SplitMix64 goes on.
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((z ^ (z >> 31)) >> 32).unwrap()
}

/// An input near those of the corpus: one of them with a few bytes changed, put in, taken out, or taken from another.
fn altered(inputs: &[Vec<u8>], dice: &mut u64) -> Vec<u8> {
    let mut data = inputs[next(dice) % inputs.len()].clone();
    for _ in 0..=next(dice) % 4 {
        let at = next(dice) % (data.len() + 1);
        let end = at + (next(dice) % 9).min(data.len() - at);
        match next(dice) % 6 {
            0 => data.insert(at, u8::try_from(next(dice) % 256).unwrap()),
            1 => drop(data.drain(at..end)),
            2 => data.splice(at..at, data[at..end].to_vec()).for_each(drop),
            3 => data.truncate(at.max(1)),
            4 => {
                let other = &inputs[next(dice) % inputs.len()];
                let from = next(dice) % (other.len() + 1);
                let piece = &other[from..(from + next(dice) % 40).min(other.len())];
                data.splice(at..end, piece.iter().copied()).for_each(drop);
            }
            _ => {
                if let Some(byte) = data.get_mut(at) {
                    *byte = [*byte ^ (1 << (next(dice) % 8)), 0, 255, b'\n', b'"', b'{'][next(dice) % 6];
                }
            }
        }
    }
    data
}

/// Inputs near the corpus hold as well: a few of them always the same, or new ones for `ROOST_FUZZ_SECONDS` seconds.
fn near_the_corpus(name: &str) {
    let folder = root().join("corpus").join(name);
    let inputs: Vec<Vec<u8>> = names(&folder).iter().map(|input| fs::read(folder.join(input)).unwrap()).collect();
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    let seconds = std::env::var("ROOST_FUZZ_SECONDS").ok().and_then(|s| s.parse::<u64>().ok());
    let began = tokio::time::Instant::now();
    let over = |count: u64| match seconds {
        Some(seconds) => began.elapsed().as_secs() >= seconds,
        None => count >= 100,
    };
    let mut dice = seconds.map_or(1, |_| crate::clock::system_wall().0);
    let mut count = 0;
    while !over(count) {
        let data = altered(&inputs, &mut dice);
        if catch_unwind(AssertUnwindSafe(|| target(&data))).is_err() {
            let path = std::env::temp_dir().join(format!("roost-{name}-{}", blake3::hash(&data).to_hex()));
            fs::write(&path, &data).unwrap();
            panic!(
                "{} breaks a law of {name}; move it to fuzz/corpus/{name}/ and put right what is wrong",
                path.display()
            );
        }
        count += 1;
    }
    println!("{name}: {count} executions in {:?}, {} inputs", began.elapsed(), inputs.len());
}

macro_rules! replays {
    ($($target:ident),* $(,)?) => {
        /// The targets that are replayed here.
        const REPLAYED: &[&str] = &[$(stringify!($target)),*];
        mod the_corpus_holds_for {
            $(#[test]
            fn $target() {
                super::replayed(stringify!($target));
            })*
        }
        mod what_lies_near_the_corpus_holds_for {
            $(#[test]
            fn $target() {
                super::near_the_corpus(stringify!($target));
            })*
        }
    };
}
replays![
    cards,
    cluster_config,
    config,
    dht,
    gd,
    http,
    imap,
    journal,
    manifest,
    msglist,
    names,
    nr,
    ns,
    openpgp,
    peer_descriptor,
    smtp,
    splitter,
];

#[test]
fn every_target_is_built_has_a_corpus_and_is_replayed() {
    let targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    let files: Vec<String> = targets.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names(&root().join("fuzz_targets")), files);
    assert_eq!(names(&root().join("corpus")), targets);
    assert_eq!(REPLAYED, targets);
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for name in &targets {
        assert!(manifest.contains(&format!("\npath = \"fuzz_targets/{name}.rs\"\n")), "{name}");
        let body = fs::read_to_string(root().join("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(body.contains(&format!("roost::fuzzing::{name}(data)")), "{body}");
    }
    // Else `--locked` is refused there, and something else is fuzzed than is built.
    let ours = locked_for_roost(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert_eq!(locked_for_roost(&root()), ours, "run `cargo update --workspace` in fuzz/");
}

/// What the `Cargo.lock` in `folder` says that Roost depends on, each with its version; but what its own tests alone need, of which
/// fuzz/ knows nothing.
fn locked_for_roost(folder: &Path) -> BTreeMap<String, String> {
    let read = |path: PathBuf| fs::read_to_string(path).unwrap().parse::<toml::Table>().unwrap();
    let manifest = read(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    let is_in = |table: &str, name: &str| manifest[table].as_table().unwrap().contains_key(name);
    let lock = read(folder.join("Cargo.lock"));
    let text = |package: &toml::Value, key: &str| package[key].as_str().unwrap().to_owned();
    let packages: Vec<(String, &toml::Value)> =
        lock["package"].as_array().unwrap().iter().map(|package| (text(package, "name"), package)).collect();
    let version = |dependency: &str| match dependency.split_once(' ') {
        // Named where there are several.
        Some((name, version)) => (name.to_owned(), version.to_owned()),
        None => {
            let (name, package) = packages.iter().find(|(name, _)| name == dependency).unwrap();
            (name.clone(), text(package, "version"))
        }
    };
    let (_, roost) = packages.iter().find(|(name, _)| name == "roost").unwrap();
    let all = roost["dependencies"].as_array().unwrap().iter().map(|one| version(one.as_str().unwrap()));
    all.filter(|(name, _)| is_in("dependencies", name) || !is_in("dev-dependencies", name)).collect()
}

#[test]
fn an_input_that_breaks_a_law_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("good"), "harmless").unwrap();
    fs::write(folder.path().join("bad"), "planted").unwrap();
    let target = |data: &[u8]| assert!(data != b"planted", "the planted input");
    assert_eq!(replay(target, folder.path()), (vec!["bad".to_owned()], 2));
}

#[test]
fn the_laws_can_be_broken() {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Forgets {
        #[serde(skip)]
        what: u8,
    }
    assert!(catch_unwind(|| encodes_and_decodes(&Forgets { what: 1 })).is_err());
    encodes_and_decodes(&Forgets { what: 0 });
    #[derive(Debug, PartialEq)]
    struct Doubles(u32);
    impl std::fmt::Display for Doubles {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{}", self.0 * 2)
        }
    }
    impl std::str::FromStr for Doubles {
        type Err = std::num::ParseIntError;
        fn from_str(text: &str) -> Result<Self, Self::Err> {
            text.parse().map(Self)
        }
    }
    assert!(catch_unwind(|| reads_as_it_prints::<Doubles>("3")).is_err());
    assert_eq!(reads_as_it_prints::<Doubles>("0"), Some(Doubles(0)));
}
