//! Promise: no bytes, however wrong, make a decoder panic or ask for memory without bound.
//!
//! The decoders are those of the fuzzers, whose corpora are replayed here. `KURA_TEST_LONG=1` tries a hundred times as
//! many random changes; `fuzz/run` searches for new ways through each decoder. `KURA_WRITE_CORPUS=1` begins a corpus for
//! decoders that have none.

#[path = "../../fuzz/decoders/mod.rs"]
pub mod table;

use std::path::{Path, PathBuf};

use table::{Decoder, decoders};

/// A small generator, so that a failure can be repeated by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % sides.max(1)
    }
}

/// A few changes: bytes flipped, set, removed, repeated; or something quite different.
fn mutate(sample: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for _ in 0..=dice.roll(4) {
        let at = dice.roll(bytes.len());
        match dice.roll(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.roll(8),
            1 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][dice.roll(5)],
            2 => bytes.truncate(at),
            3 => bytes.splice(at..at, (0..dice.roll(9)).map(|_| 0xff)).for_each(drop),
            4 if !bytes.is_empty() => drop(bytes.remove(at)),
            5 => {
                let end = at + dice.roll(bytes.len() - at + 1);
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part).for_each(drop);
            }
            _ => bytes.iter_mut().skip(at).take(8).for_each(|byte| *byte = 0xff),
        }
    }
    bytes
}

/// Bytes of a file that begins a corpus, at most.
const SEED_LEN_MAX: usize = 4096;

/// What was found worth keeping for a decoder.
fn corpus(decoder: &Decoder) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(decoder.name);
    if std::env::var_os("KURA_WRITE_CORPUS").is_some() && !dir.exists() {
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("sample"), &decoder.sample[..decoder.sample.len().min(SEED_LEN_MAX)]).unwrap();
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|item| item.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Runs a decoder; `what` tells which bytes these are.
fn survives(decoder: &Decoder, bytes: &[u8], what: &dyn std::fmt::Display) {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| decoder.run(bytes)));
    assert!(outcome.is_ok(), "{} is brought down by {what}", decoder.name);
}

#[test]
fn no_decoder_is_brought_down_by_any_bytes() {
    let rounds = if std::env::var_os("KURA_TEST_LONG").is_some() { 200_000 } else { 2_000 };
    for decoder in decoders() {
        survives(&decoder, &decoder.sample, &"what it understands");
        let rounds = if decoder.sample.len() > 10_000 { rounds / 20 } else { rounds };
        for seed in 0..rounds {
            survives(&decoder, &mutate(&decoder.sample, &mut Dice(seed)), &format!("seed {seed}"));
        }
    }
}

#[test]
fn what_fuzzers_found_brings_no_decoder_down() {
    let known: Vec<&str> = decoders().iter().map(|decoder| decoder.name).collect();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for item in std::fs::read_dir(dir).unwrap() {
        let name = item.unwrap().file_name().into_string().unwrap();
        assert!(known.contains(&name.as_str()), "fuzz/corpus/{name} belongs to no decoder");
    }
    for decoder in decoders() {
        let corpus = corpus(&decoder);
        assert!(!corpus.is_empty(), "{} has no corpus", decoder.name);
        for (number, bytes) in corpus.iter().enumerate() {
            survives(&decoder, bytes, &format!("file {number} of its corpus"));
            // Another few steps from where the fuzzer had been.
            for seed in 0..5 {
                let bytes = mutate(bytes, &mut Dice(seed));
                survives(&decoder, &bytes, &format!("file {number} of its corpus and seed {seed}"));
            }
        }
    }
}
