//! `kura demo`: the main job from beginning to end, in a scratch directory, with ordinary tools.

use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::base::random;

const PASSPHRASE: &str = "a passphrase for the demonstration";

/// Plays the story; with `stay`, leaves the mount in place and says how to end it.
pub fn run(stay: bool) -> io::Result<()> {
    let mut story = Story::begin()?;
    let played = story.play();
    if stay && played.is_ok() {
        return story.leave();
    }
    story.end()?;
    played
}

struct Story {
    scratch: PathBuf,
    kura: PathBuf,
    mounted: bool,
}

impl Story {
    fn begin() -> io::Result<Self> {
        let scratch = std::env::temp_dir().join(format!("kura-demo-{:08x}", random::number() & 0xffff_ffff));
        std::fs::DirBuilder::new().mode(0o700).create(&scratch)?;
        std::fs::create_dir(scratch.join("work"))?;
        Ok(Self { scratch, kura: std::env::current_exe()?, mounted: false })
    }

    fn play(&mut self) -> io::Result<()> {
        say("An encrypted workspace in a plain directory. The recovery code is shown once.")?;
        self.kura(&["init"])?;
        say("Mounted, it is an ordinary directory.")?;
        self.kura(&["mount", &self.path("work")])?;
        self.mounted = true;
        self.shell("mkdir -p work/plans && printf 'launch: Monday\\nbudget: 100\\n' > work/plans/rocket.txt")?;
        self.shell("printf 'the door code is 4711\\n' > work/secret.txt && ls -l work work/plans")?;
        self.work(&["snapshot", "-m", "first plans"])?;
        say("Editing with ordinary tools: sed writes a new file and renames it over the old one.")?;
        self.shell("sed -i s/Monday/Friday/ work/plans/rocket.txt && rm work/secret.txt")?;
        self.work(&["snapshot", "-m", "postponed", "--name", "friday"])?;
        say("Every state is kept.")?;
        self.work(&["log"])?;
        self.work(&["diff", "latest~1", "latest", "--patch"])?;
        say("Past states are directories, too.")?;
        self.shell("cat work/.kura/versions/by-tag/friday/plans/rocket.txt")?;
        say("One file comes back from the version before.")?;
        self.work(&["restore", "latest~1", "secret.txt"])?;
        self.shell("cat work/secret.txt")?;
        say("What the store holds is sealed: no name, no word.")?;
        self.work(&["flush", "--wait"])?;
        self.shell("ls store; ! grep -rlae rocket -e 4711 -e launch store state cache && echo 'nothing readable found'")?;
        self.work(&["status"])
    }

    /// Unmounts and removes the scratch directory.
    fn end(self) -> io::Result<()> {
        if self.mounted {
            say("Unmounting publishes what is pending.")?;
            self.kura(&["unmount", &self.path("work")])?;
        }
        std::fs::remove_dir_all(&self.scratch)
    }

    fn leave(self) -> io::Result<()> {
        let scratch = self.scratch.display();
        say(&format!(
            "The mount stays at {scratch}/work. To end it:\n  {} unmount {scratch}/work && rm -r {scratch}",
            self.kura.display()
        ))
    }

    fn path(&self, name: &str) -> String {
        self.scratch.join(name).display().to_string()
    }

    /// Runs kura with the arguments, as a user of the scratch directory.
    fn kura(&self, arguments: &[&str]) -> io::Result<()> {
        let shown: Vec<String> = arguments.iter().map(|argument| shown(argument)).collect();
        show(&format!("kura {}", shown.join(" ")))?;
        let mut command = Command::new(&self.kura);
        command.args(arguments);
        self.finish(command, &self.scratch)
    }

    /// Runs kura inside the mount, where it needs no address and no passphrase.
    fn work(&self, arguments: &[&str]) -> io::Result<()> {
        let shown: Vec<String> = arguments.iter().map(|argument| shown(argument)).collect();
        show(&format!("cd work; kura {}", shown.join(" ")))?;
        let mut command = Command::new(&self.kura);
        command.args(arguments);
        self.finish(command, &self.scratch.join("work"))
    }

    fn shell(&self, script: &str) -> io::Result<()> {
        show(script)?;
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        self.finish(command, &self.scratch)
    }

    fn finish(&self, mut command: Command, dir: &Path) -> io::Result<()> {
        command.current_dir(dir);
        command.env("KURA_STORE", self.path("store")).env("KURA_PASSPHRASE", PASSPHRASE);
        command.env("KURA_STATE_DIR", self.path("state")).env("KURA_CACHE_DIR", self.path("cache"));
        let status = command.status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("the step ended with {status}"))) }
    }
}

fn shown(argument: &str) -> String {
    if argument.contains(' ') { format!("'{argument}'") } else { argument.to_owned() }
}

fn say(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "\n# {text}")
}

fn show(command: &str) -> io::Result<()> {
    writeln!(io::stdout(), "$ {command}")
}
