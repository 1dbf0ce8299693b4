//! One harness for every figure that kura promises: `cargo bench -- [SECTION…]`.
//!
//! Figures are ratios against native or gocryptfs in the same run, and CPU time per operation (client
//! plus daemon), which holds on a noisy machine; wall time is shown beside it. See `benches/README.md`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    missing_docs,
    reason = "a benchmark fails by panicking"
)]
#![allow(clippy::disallowed_methods, clippy::cast_possible_truncation, reason = "a benchmark writes files of its own")]

mod batch;
mod ceiling;
mod cpu;
mod engine;
mod local;
mod million;
mod remote;
mod requests;
mod report;
mod target;
#[path = "../tests/it/s3_server/mod.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod s3_server;

type Section = fn(&mut report::Report);

const SECTIONS: [(&str, Section); 13] = [
    ("primitives", engine::primitives),
    ("commit", engine::commit_cost),
    ("insert", engine::insert_one_byte),
    ("import", remote::import_requests),
    ("small", local::small_files),
    ("large", local::large_files),
    ("requests", requests::counts),
    ("scale", local::scale),
    ("million", million::million),
    ("remote", remote::slow_store),
    ("propagation", remote::propagation),
    ("batch", batch::batch),
    ("rclone", batch::beside_rclone),
];

fn main() {
    // The harness starts itself again to serve the file system in memory.
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, command, dir] = arguments.as_slice()
        && command == target::CEILING
    {
        return ceiling::serve(std::path::Path::new(dir));
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if let Some(unknown) = wanted.iter().find(|name| SECTIONS.iter().all(|(section, _)| section != name)) {
        let names: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
        println!("no section `{unknown}`; there are: {}", names.join(" "));
        std::process::exit(2);
    }
    let mut report = report::Report::default();
    for (name, section) in SECTIONS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            println!("== {name}");
            section(&mut report);
        }
    }
    report.finish();
}
