//! Killed at random moments and resumed: every file is processed once, by the command line.

use std::process::Stdio;
use std::time::Duration;

use crate::cli::support::{Home, tree};

const FILES: usize = 120;

#[test]
fn killed_at_any_moment_and_resumed_every_file_is_processed_once() {
    let long = std::env::var_os("KURA_TEST_LONG").is_some();
    let kills = if long { 50 } else { 5 };
    let home = Home::new();
    let store = home.path("store");
    // A key file, since a passphrase costs a second each time.
    let key = home.path("key");
    std::fs::write(&key, kura::base::random::bytes::<64>()).unwrap();
    let with_key = |args: &[&str]| {
        let mut command = home.bare();
        command.args(args).arg("--key-file").arg(&key).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    assert!(with_key(&["init", store.to_str().unwrap()]).status().unwrap().success());
    let files = home.dir("files");
    let job = home.path("job.toml");
    let text = format!(
        "name = \"kill\"\n[source]\nurl = \"file://{}\"\n[process]\nkind = \"regex\"\nfind = '\\A'\nwith = \"mark:\"\n",
        files.display()
    );
    std::fs::write(&job, text).unwrap();
    let wanted: Vec<(String, Vec<u8>)> = {
        let name = |number: usize| format!("d{}/f{number}", number % 5);
        let mut wanted: Vec<_> =
            (0..FILES).map(|number| (name(number), format!("mark:{number}").into_bytes())).collect();
        wanted.sort();
        wanted
    };
    let batch = |verb: &str| with_key(&["-w", store.to_str().unwrap(), "batch", verb, job.to_str().unwrap()]);
    let mut interrupted = 0;
    for round in 0..kills {
        for number in 0..FILES {
            let path = files.join(format!("d{}", number % 5));
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join(format!("f{number}")), number.to_string()).unwrap();
        }
        let mut verb = "run";
        // The time until it is done is not known, so each kill waits longer than the one before.
        let mut wait_ms = 20;
        for step in 0..60 {
            let mut child = batch(verb).spawn().unwrap();
            let wait = Duration::from_millis(wait_ms / 2 + kura::base::random::number() % wait_ms);
            wait_ms += wait_ms / 2;
            let until = std::time::Instant::now() + wait;
            let mut ended = None;
            while ended.is_none() && std::time::Instant::now() < until {
                ended = child.try_wait().unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
            if ended.is_none() {
                child.kill().unwrap();
            }
            let status = child.wait().unwrap();
            if status.success() && verb != "run" || ended.is_some_and(|status| status.success()) {
                break;
            }
            if ended.is_none() {
                interrupted += 1;
            }
            // A scan that was killed has left no backlog of this round, so it is begun anew now and then.
            verb = if step % 2 == 0 { "resume" } else { "run" };
        }
        let last = batch("run").stderr(Stdio::piped()).output().unwrap();
        assert!(last.status.success(), "round {round}: {last:?}");
        let found: Vec<(String, Vec<u8>)> = tree(&files)
            .into_iter()
            .filter(|(name, _)| !name.ends_with('/') && !name.contains(".kura-part-"))
            .collect();
        assert_eq!(found, wanted, "round {round}");
    }
    assert!(interrupted > 0, "some runs were killed");
}
