//! `kura ui` in a real terminal, by tmux.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::rig::{becomes, fill};
use crate::cli::support::{Home, wait_for};

const SOON: Duration = Duration::from_secs(120);

/// A terminal, ended with the test.
struct Screen {
    socket: PathBuf,
}

impl Screen {
    fn start(home: &Home, place: &str) -> Self {
        let screen = Self { socket: home.path("tmux") };
        let program = home.kura(["ui", place]);
        let mut command = screen.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "30"]);
        command.env_clear().env("TERM", "xterm-256color").env("LANG", "C.UTF-8").env("PATH", "/usr/bin:/bin");
        for (name, value) in program.get_envs() {
            if let Some(value) = value.filter(|_| name != "KURA_LOG" && name != "PATH") {
                command.env(name, value);
            }
        }
        // The exit code stays to be seen.
        let line = format!("'{}' ui '{place}'; echo ended $?; read x", program.get_program().to_str().unwrap());
        assert!(command.arg(line).status().unwrap().success());
        screen
    }

    fn tmux(&self, args: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-u").arg("-S").arg(&self.socket).args(args);
        command
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.tmux(&["capture-pane", "-p"]).output().unwrap().stdout).into_owned()
    }

    fn keys(&self, keys: &[&str]) {
        assert!(self.tmux(&["send-keys"]).args(keys).status().unwrap().success());
    }

    #[track_caller]
    fn sees(&self, text: &str) {
        assert!(wait_for(SOON, || self.shown().contains(text)), "`{text}` is not there:\n{}", self.shown());
    }

    /// From the row with one text down to that with another.
    fn goes_down(&self, from: &str, to: &str) {
        let rows = self.shown();
        let line = |text: &str| rows.lines().position(|line| line.contains(text)).unwrap();
        (line(from)..line(to)).for_each(|_| self.keys(&["j"]));
    }

    /// An Escape and the next key at once would be another key.
    #[track_caller]
    fn sees_no_more(&self, text: &str) {
        assert!(wait_for(SOON, || !self.shown().contains(text)), "`{text}` stays:\n{}", self.shown());
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]).status().ok();
    }
}

#[test]
fn history_differences_restoring_and_conflicts_in_a_terminal() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "work");
    fill(&home, &mount);
    fs::write(mount.file("bell\x07\x1b[31m.txt"), "\x1b]0;title\x07text\n").unwrap();
    let screen = Screen::start(&home, mount.path.to_str().unwrap());
    screen.sees("the second state");
    screen.sees("(v1) the first state");
    // From the newest down to the second state, into it, and into a file of it.
    let at =
        screen.shown().lines().filter(|line| line.contains('@')).position(|line| line.contains("the second state"));
    for _ in 0..at.unwrap() {
        screen.keys(&["j"]);
    }
    screen.keys(&["Enter"]);
    screen.sees("M notes.txt");
    screen.goes_down("files of this version", "M notes.txt");
    screen.keys(&["Enter"]);
    screen.sees("-beta");
    screen.sees("+better");
    // Its history, and back to an earlier state with a question first.
    screen.keys(&["h"]);
    screen.sees("History of notes.txt");
    screen.keys(&["G", "r"]);
    screen.sees("1 paths would change");
    assert_eq!(fs::read_to_string(mount.file("notes.txt")).unwrap(), "alpha\nbetter\ngamma\n", "nothing was done yet");
    screen.keys(&["Escape"]);
    screen.sees_no_more("1 paths would change");
    screen.keys(&["r"]);
    screen.sees("1 paths would change");
    screen.keys(&["y"]);
    screen.sees("as in version");
    becomes(&mount.file("notes.txt"), "alpha\nbeta\ngamma\n");
    // Names cannot move the cursor.
    screen.keys(&["2"]);
    screen.sees("bell\\u{7}\\u{1b}[31m.txt");
    // A conflict, in sight from anywhere; the mount itself saw none.
    screen.sees(", 1 conflict");
    screen.keys(&["3"]);
    screen.sees("plan.md  <->  conflict-20261121.101500.plan.md");
    screen.keys(&["Enter"]);
    screen.sees("-ours");
    screen.sees("+theirs");
    screen.keys(&["t"]);
    screen.sees("ours goes");
    screen.keys(&["y"]);
    screen.sees("Conflicts: none");
    screen.sees_no_more(", 1 conflict");
    becomes(&mount.file("plan.md"), "theirs\nshared\n");
    // A snapshot with words, and how it is.
    screen.keys(&["s"]);
    screen.sees("What is this state?");
    screen.keys(&["-l", "from the terminal"]);
    screen.keys(&["Enter"]);
    screen.sees("recorded version");
    screen.sees("from the terminal");
    // A file that has another name and nothing else new.
    fs::rename(mount.file("inner/deep.txt"), mount.file("inner/deeper.txt")).unwrap();
    screen.keys(&["s"]);
    screen.sees("What is this state?");
    screen.keys(&["-l", "another name"]);
    screen.keys(&["Enter"]);
    screen.sees("another name");
    screen.keys(&["Enter"]);
    screen.sees("R inner/deep.txt -> inner/deeper.txt");
    screen.goes_down("files of this version", "R inner/deep.txt");
    screen.keys(&["Enter"]);
    screen.sees("nothing else differs");
    screen.keys(&["4"]);
    screen.sees("workspace");
    screen.keys(&["?"]);
    screen.sees("what differs between this version and now");
    screen.keys(&["Escape"]);
    screen.sees_no_more("what differs between this version and now");
    screen.keys(&["q"]);
    screen.sees("ended 0");
}

#[test]
fn without_a_terminal_it_says_what_to_use() {
    let home = Home::new();
    let store = home.store("store");
    let ended = crate::cli::support::run(home.kura(["ui"]).arg(&store));
    ended.fails(2, &["needs a terminal", "kura log"]);
}
