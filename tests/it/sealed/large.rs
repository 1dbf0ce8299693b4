//! Large files are worked on in little memory.

use std::process::Command;

use crate::cli::support::Home;

/// Most memory that an update may need, in KiB.
const RESIDENT_KIB_MAX: u64 = 64 * 1024;

/// Runs the program and says how much memory it had at most, as the system counts it.
fn peak_kib(command: &Command) -> u64 {
    let script = "import resource, subprocess, sys\n\
                  ended = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)\n\
                  print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n\
                  sys.exit(ended.returncode)";
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(command.get_program()).args(command.get_args()).env_clear();
    python.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    python.current_dir(command.get_current_dir().unwrap());
    let output = python.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// A file of 128 MiB, or with `KURA_TEST_LONG` of 1 GiB, with documents of the largest size that this allows.
#[test]
fn an_update_of_a_large_file_needs_little_memory() {
    let home = Home::new();
    let (slots, capacity_kib) = if super::support::is_long() { (255, 4112) } else { (32, 4096) };
    let json = |letter: char| format!("{{\"a\":\"{}\"}}", letter.to_string().repeat((capacity_kib - 1) * 1024));
    std::fs::write(home.path("one.json"), json('1')).unwrap();
    std::fs::write(home.path("two.json"), json('2')).unwrap();
    let sealed = |args: &[&str]| {
        let mut command = home.bare();
        command.arg("sealed").args(args).env("KURA_SEALED_PASSWORD", "password");
        command
    };
    let (slots, capacity) = (slots.to_string(), capacity_kib.to_string());
    let size = ["--slots", &slots, "--capacity-kib", &capacity];
    let ids = "1,7,12,13,20,21,30,32";
    let create =
        sealed(&[&["init", "f", "--ids", ids, "--threshold", "5", "--document", "one.json"], &size[..]].concat());
    let mut peaks = vec![peak_kib(&create)];
    let wanted = slots.parse::<u64>().unwrap() * (capacity_kib as u64) * 1024;
    assert!(std::fs::metadata(home.path("f")).unwrap().len() >= wanted);
    peaks.push(peak_kib(&sealed(&["update", "f", "--ids", ids, "--document", "two.json", "--no-backup"])));
    peaks.push(peak_kib(&sealed(&["verify", "f", "--ids", ids])));
    peaks.push(peak_kib(&sealed(&["read", "f", "--ids", ids])));
    let read = sealed(&["read", "f", "--ids", ids]).output().unwrap();
    assert!(read.stdout == (json('2') + "\n").as_bytes());
    println!("peaks of create, update, verify and read: {peaks:?} KiB");
    assert!(peaks.iter().all(|peak| *peak < RESIDENT_KIB_MAX), "{peaks:?} KiB");
}
