//! The corpora of the fuzz targets through the targets' own bodies, without a fuzzer and with the stable compiler: what
//! once crashed, or reached a corner, goes on being tested. `RINGSTORE_REWRITE=1 cargo test --test corpora` writes the
//! seeds, the well-formed inputs that the corpora begin with, anew.

use std::fs;
use std::path::{Path, PathBuf};

#[allow(unreachable_pub)]
#[path = "fuzz/src/bodies/mod.rs"]
mod bodies;

/// A corpus is small: it is in every checkout, and every run of the tests goes through it.
const CORPUS_BYTES_MAX: u64 = 96 << 10;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target)
}

#[test]
fn every_input_of_the_corpora_holds() {
    for target in bodies::TARGETS {
        let folder = corpus(target.name);
        if std::env::var_os("RINGSTORE_REWRITE").is_some() {
            fs::create_dir_all(&folder).unwrap();
            for (index, seed) in (target.seeds)().iter().enumerate() {
                fs::write(folder.join(format!("seed-{index:02}")), seed).unwrap();
            }
        }
        let (mut count, mut bytes) = (0, 0);
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            let input = fs::read(&path).unwrap();
            // Shown when the body panics.
            println!("{}", path.display());
            (target.body)(&input);
            (count, bytes) = (count + 1, bytes + input.len() as u64);
        }
        assert!(count >= (target.seeds)().len(), "{}: {count} inputs", target.name);
        assert!(bytes <= CORPUS_BYTES_MAX, "{}: {bytes} bytes, the limit is {CORPUS_BYTES_MAX}", target.name);
    }
}

/// A body that hits nothing tests nothing: seeds are well-formed, and a changed byte is noticed by what checks sums.
#[test]
fn seeds_are_taken_whole_and_any_prefix_of_them_is_survived() {
    for target in bodies::TARGETS {
        for seed in (target.seeds)() {
            for length in (0..seed.len()).step_by(1 + seed.len() / 64) {
                (target.body)(&seed[..length]);
            }
        }
    }
}

#[test]
fn every_target_has_a_program() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/Cargo.toml");
    let manifest = fs::read_to_string(manifest).unwrap();
    for target in bodies::TARGETS {
        assert!(manifest.contains(&format!("name = \"{}\"", target.name)), "{}", target.name);
        assert!(std::ptr::fn_addr_eq(bodies::body(target.name), target.body));
    }
    assert_eq!(manifest.matches("[[bin]]").count(), bodies::TARGETS.len());
}
