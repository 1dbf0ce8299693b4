//! `kura demo`: the whole story in a scratch directory.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use data_encoding::HEXLOWER;

use super::config::{PASSPHRASE_COMMAND_VAR, PASSPHRASE_FD_VAR, PASSPHRASE_FILE_VAR, PASSPHRASE_VAR};
use super::{Context, unmount};
use crate::base::random;
use crate::control::{Exit, Failure};
use crate::fuse;

/// Show what kura does, in a scratch directory
///
/// Makes an encrypted workspace, mounts it, edits files with ordinary tools, takes snapshots, shows
/// history and differences, restores, and unmounts. Nothing of yours is touched.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura demo
  kura demo --stay      leaves the mount for you to play with")]
pub struct DemoArgs {
    /// Leave the mount, and say how to end it
    #[arg(long)]
    stay: bool,
}

/// What is told, and what is run in the mount; `kura` is this program.
const STORY: &[(&str, &[&str])] = &[
    (
        "Ordinary programs write ordinary files.",
        &[
            "mkdir letters",
            "printf 'Dear Ada,\\nthe engine works.\\n' > letters/ada.txt",
            "seq 1 9 > numbers.txt",
            "ls -lR .",
        ],
    ),
    (
        "A snapshot records a version with a message. (Versions are recorded by themselves, too.)",
        &["kura snapshot -m 'the first letter' --name first"],
    ),
    (
        "More edits: a changed line, a renamed directory, a removed file.",
        &[
            "sed -i 's/works/works well/' letters/ada.txt",
            "mv letters post",
            "rm numbers.txt",
            "kura snapshot -m 'better news'",
        ],
    ),
    ("History, and what changed.", &["kura log", "kura diff first --patch"]),
    (
        "Past versions are directories of their own, and any state comes back.",
        &[
            "ls .kura/versions/by-tag/first/",
            "kura cat first:letters/ada.txt",
            "kura restore first",
            "ls -R . && head -n 2 letters/ada.txt",
        ],
    ),
    (
        "What lies in the store tells nothing: no name, no text.",
        &[
            "find \"$KURA_STORE\" -type f | head -n 5",
            "! grep -rqe Ada -e letters \"$KURA_STORE\" && echo 'grep finds neither Ada nor letters'",
        ],
    ),
    ("Everything gets published to the store.", &["kura flush --wait", "kura status"]),
];

/// Runs `kura demo`.
pub fn run(context: &Context, args: &DemoArgs) -> Result<Exit, Failure> {
    let scratch = Scratch::new()?;
    let told = tell(context, &scratch);
    if args.stay && told.is_ok() {
        let root = scratch.root.display();
        context.output.line(&format!(
            "\nThe workspace stays at {mount}. To play with it:\n\n    \
             export KURA_STATE_DIR={root}/state KURA_CACHE_DIR={root}/cache\n    \
             export {PASSPHRASE_FILE_VAR}={root}/passphrase\n    \
             cd {mount}\n\nTo end it:\n\n    cd / && kura unmount {mount} && rm -r {root}",
            mount = scratch.mount().display()
        ))?;
        return Ok(Exit::Ok);
    }
    let ended = told.and_then(|()| {
        context.output.line("\n# Unmounting publishes what is left. The store alone brings all of it back.")?;
        scratch.sh(context, "/", &format!("kura unmount {}", scratch.mount().display()))?;
        scratch.sh(context, "/", "kura log")
    });
    scratch.remove();
    ended?;
    context.output.line("\nThat was all. `kura --help` says how to begin for real.")?;
    Ok(Exit::Ok)
}

fn tell(context: &Context, scratch: &Scratch) -> Result<(), Failure> {
    context.output.line("# A new encrypted workspace in a directory, mounted as another.")?;
    scratch.sh(context, "/", &format!("kura init --kdf-memory-mib 16 {}", scratch.store().display()))?;
    scratch.sh(context, "/", &format!("kura mount {}", scratch.mount().display()))?;
    let inside = scratch.mount();
    for (words, commands) in STORY {
        context.output.line(&format!("\n# {words}"))?;
        for command in *commands {
            scratch.sh(context, &inside, command)?;
        }
    }
    Ok(())
}

/// A directory with everything that the demonstration makes.
struct Scratch {
    root: PathBuf,
}

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let name = format!("kura-demo-{}", HEXLOWER.encode(&random::bytes::<4>()));
        let root = std::env::temp_dir().join(name);
        let failed = |error: std::io::Error| {
            Failure::new(Exit::Other, format!("the scratch directory {} cannot be made: {error}", root.display()))
        };
        let mut builder = DirBuilder::new();
        builder.mode(0o700).create(&root).map_err(failed)?;
        builder.create(root.join("work")).map_err(failed)?;
        // The program under its own name, for the shell to find.
        builder.create(root.join("bin")).map_err(failed)?;
        let program = std::env::current_exe().map_err(failed)?;
        std::os::unix::fs::symlink(program, root.join("bin/kura")).map_err(failed)?;
        let mut options = OpenOptions::new();
        let mut passphrase =
            options.write(true).create_new(true).mode(0o600).open(root.join("passphrase")).map_err(failed)?;
        writeln!(passphrase, "{}", HEXLOWER.encode(&random::bytes::<16>())).map_err(failed)?;
        Ok(Self { root })
    }

    fn mount(&self) -> PathBuf {
        self.root.join("work")
    }

    fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// Shows a command and runs it in a shell.
    fn sh(&self, context: &Context, dir: impl AsRef<Path>, command: &str) -> Result<(), Failure> {
        context.output.line(&format!("$ {command}"))?;
        let mut path = self.root.join("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut shell = Command::new("sh");
        for var in [PASSPHRASE_VAR, PASSPHRASE_FD_VAR, PASSPHRASE_COMMAND_VAR, "KURA_CONFIG"] {
            shell.env_remove(var);
        }
        let status = shell
            .args(["-c", command])
            .env("PATH", path)
            .env("KURA_STORE", self.store())
            .env("KURA_STATE_DIR", self.root.join("state"))
            .env("KURA_CACHE_DIR", self.root.join("cache"))
            .env(PASSPHRASE_FILE_VAR, self.root.join("passphrase"))
            .current_dir(dir)
            .stdin(Stdio::null())
            .status()
            .map_err(|error| Failure::new(Exit::Other, format!("`sh` cannot be run: {error}")))?;
        match status.success() {
            true => Ok(()),
            false => Err(Failure::new(Exit::Other, format!("`{command}` failed ({status})"))),
        }
    }

    /// Removes everything; never what is still mounted.
    fn remove(&self) {
        let mount = self.mount();
        if fuse::mountpoints().contains(&mount)
            && let Err(failure) = unmount::detach(&mount, true)
        {
            super::output::warn(&format!("{failure}; {} stays", self.root.display()));
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.root) {
            super::output::warn(&format!("{} stays: {error}", self.root.display()));
        }
    }
}
