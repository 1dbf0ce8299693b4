//! Searches for bytes that bring a decoder down. `KURA_FUZZ` names the decoder, `KURA_FUZZ_SAMPLE` a file for what it
//! understands; everything else is libFuzzer's.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a fuzzer fails by panicking")]
#![no_main]

mod decoders;

use libfuzzer_sys::fuzz_target;

thread_local! {
    static CHOSEN: decoders::Decoder = {
        let name = std::env::var("KURA_FUZZ").unwrap_or_default();
        let all = decoders::decoders();
        let names: Vec<_> = all.iter().map(|decoder| decoder.name).collect();
        let chosen = names.iter().position(|known| *known == name);
        let chosen = chosen.unwrap_or_else(|| panic!("KURA_FUZZ is one of {}", names.join(" ")));
        all.into_iter().nth(chosen).unwrap()
    };
}

fn write_sample() {
    if let Some(path) = std::env::var_os("KURA_FUZZ_SAMPLE") {
        CHOSEN.with(|decoder| std::fs::write(path, &decoder.sample)).unwrap();
    }
}

fuzz_target!(init: write_sample(), |bytes: &[u8]| CHOSEN.with(|decoder| decoder.run(bytes)));
