//! The arguments of `kura release`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::control::{parse_duration_ms, parse_size};

/// Deliver signed packages, and install them
///
/// A repository is a directory, an HTTP server, a bucket, or `store` for the store of the workspace itself. What it
/// offers is signed; clients trust the root that they were given and nothing older than what they have seen.
#[derive(Args)]
#[command(after_help = "\
Publishing:
  kura release keygen ~/keys
  kura release test ./tool                      its checks, in a scratch copy of the workspace
  kura release publish ./tool --repository /srv/releases --keys ~/keys --channel beta
  kura release promote tool@1.2.0 --from beta --channel stable --percent 10 --repository /srv/releases --keys ~/keys
  kura release advance stable --repository /srv/releases --keys ~/keys
  kura release trust stable --keys ~/keys --to stable.trust
Signed by several people, each where they are:
  kura release key ~/bob --to bob.pub           by Bob, who gives away bob.pub
  kura release keygen ~/keys --with bob.pub --threshold 2 --to-sign root.json
  kura release sign root.json --keys ~/bob      by Bob
  kura release complete root.json --keys ~/keys
  kura release publish ./tool --channel beta --repository /srv/releases --keys ~/keys --to-sign offer.json
  kura release sign offer.json --keys ~/bob --trust beta.trust
  kura release complete offer.json --repository /srv/releases --keys ~/keys
Installing:
  kura release follow https://example.org/releases --trust stable.trust --every 1h --install
  kura release check                            each version, and why it is not installed
  kura release install tool@^1.2
  kura release update && kura release rollback tool")]
pub struct ReleaseArgs {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Args)]
pub(super) struct At {
    /// The repository: a directory, s3://…, or `store`
    #[arg(long, value_name = "REPOSITORY")]
    pub(super) repository: String,
    /// The directory of the publisher's keys
    #[arg(long, value_name = "DIR")]
    pub(super) keys: PathBuf,
}

#[derive(Args)]
pub(super) struct Carry {
    /// Publish nothing, and write what others have to sign for it to this file
    #[arg(long, value_name = "FILE")]
    pub(super) to_sign: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct RolloutArgs {
    /// How many of a hundred clients get it by themselves
    #[arg(long, value_name = "PERCENT", default_value_t = 100.0)]
    pub(super) percent: f64,
    /// A ring of which every client gets it
    #[arg(long = "ring", value_name = "NAME")]
    pub(super) rings: Vec<String>,
    /// Neither phase nor window holds it back
    #[arg(long)]
    pub(super) emergency: bool,
    /// Steps as PERCENT:SAMPLES:SECONDS:SUCCESS-PERCENT:FAILURES, e.g. `1:20:3600:95:2`
    #[arg(long = "step", value_name = "STEP")]
    pub(super) steps: Vec<String>,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make the keys of a publisher; again, the next ones
    Keygen {
        /// The directory of the keys
        dir: PathBuf,
        /// How many keys are made that sign the root and what is offered [default: as before, at first 1]
        #[arg(long)]
        count: Option<u32>,
        /// How many of them, and of those of others, have to [default: as before, at first 1]
        #[arg(long)]
        threshold: Option<u32>,
        /// A file with the public keys of somebody who signs elsewhere, made by `key`
        #[arg(long, value_name = "FILE")]
        with: Vec<PathBuf>,
        #[command(flatten)]
        carry: Carry,
    },
    /// Make the keys of one person, who signs for publishers elsewhere
    Key {
        /// The directory of the keys
        dir: PathBuf,
        /// The file that is written, for `keygen --with`
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Sign what a publisher elsewhere wrote with `--to-sign`
    Sign {
        /// The file; its signatures are added to it
        file: PathBuf,
        /// The directory of the keys
        #[arg(long, value_name = "DIR")]
        keys: PathBuf,
        /// A channel's file of trust, to be shown what the channel's files say
        #[arg(long, value_name = "FILE")]
        trust: Option<PathBuf>,
        /// Only say what would be signed
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Do what was written with `--to-sign`, once enough people have signed
    Complete {
        /// The file, or copies of it that were signed in different places
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The directory of the publisher's keys
        #[arg(long, value_name = "DIR")]
        keys: PathBuf,
        /// The repository, unless it is a root
        #[arg(long, value_name = "REPOSITORY")]
        repository: Option<String>,
    },
    /// Write what clients of a channel have to be given, by a way that they trust
    Trust {
        /// The channel
        channel: String,
        /// The directory of the publisher's keys
        #[arg(long, value_name = "DIR")]
        keys: PathBuf,
        /// The file that is written
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Check a package directory
    Pack {
        /// The directory, with `package.json` and `files`
        dir: PathBuf,
    },
    /// Run a package's checks in a scratch copy of the workspace
    Test {
        /// The directory, with `package.json` and `files`
        dir: PathBuf,
        /// Where the copy is made; in memory when missing
        #[arg(long, value_name = "DIR")]
        scratch: Option<PathBuf>,
    },
    /// Sign a package and offer it
    Publish {
        /// The directory, with `package.json` and `files`
        dir: PathBuf,
        #[command(flatten)]
        at: At,
        /// The channel
        #[arg(long)]
        channel: String,
        #[command(flatten)]
        rollout: RolloutArgs,
        #[command(flatten)]
        carry: Carry,
    },
    /// Offer a release of one channel in another
    Promote {
        /// The release, as `tool@1.2.0`
        release: String,
        #[command(flatten)]
        at: At,
        /// From this channel
        #[arg(long)]
        from: String,
        /// To this one
        #[arg(long)]
        channel: String,
        #[command(flatten)]
        rollout: RolloutArgs,
        #[command(flatten)]
        carry: Carry,
    },
    /// Change a rollout
    Rollout {
        /// The release, as `tool@1.2.0`
        release: String,
        /// `pause`, `resume`, `emergency`, a percentage as `25%`, or `revoke:REASON`
        change: String,
        #[command(flatten)]
        at: At,
        /// The channel
        #[arg(long)]
        channel: String,
        #[command(flatten)]
        carry: Carry,
    },
    /// Set a channel's windows and least security epochs, or (with nothing to set) renew signatures
    Channel {
        /// The channel
        channel: String,
        #[command(flatten)]
        at: At,
        /// When installs may begin, as `Europe/Berlin,mon+tue,22:00,05:00`; none means at any time
        #[arg(long = "window", value_name = "WINDOW")]
        windows: Vec<String>,
        /// The least security epoch of a package, as `tool=3`
        #[arg(long = "min-epoch", value_name = "PACKAGE=EPOCH")]
        epochs: Vec<String>,
        #[command(flatten)]
        carry: Carry,
    },
    /// Judge rollouts by feedback: on to the next step, or taken back
    Advance {
        /// The channel
        channel: String,
        #[command(flatten)]
        at: At,
        /// Only say what would be done
        #[arg(short = 'n', long)]
        dry_run: bool,
        #[command(flatten)]
        carry: Carry,
    },
    /// Set how rollouts of a channel may go before `advance` and `report` tell of it, or say what is set
    Alert {
        /// The channel
        channel: String,
        /// So many of a hundred installs may fail their checks
        #[arg(long, value_name = "PERCENT")]
        failures: Option<f64>,
        /// So many of a hundred may be taken back later
        #[arg(long, value_name = "PERCENT")]
        rollbacks: Option<f64>,
        /// An install may take so long in the mean, such as 30s
        #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
        install_time: Option<u64>,
        /// Fewer reports say nothing
        #[arg(long, value_name = "REPORTS", default_value_t = 1)]
        samples: u32,
        /// Watch nothing any more
        #[arg(long, conflicts_with_all = ["failures", "rollbacks", "install_time"])]
        none: bool,
    },
    /// Say how rollouts go
    Report {
        /// The channel
        channel: String,
        #[command(flatten)]
        at: At,
        /// In the text format of Prometheus
        #[arg(long)]
        prometheus: bool,
    },
    /// Remove old versions from a channel, and what nothing needs from the repository
    Cleanup {
        /// The channel
        channel: String,
        #[command(flatten)]
        at: At,
        /// How many versions of each package stay
        #[arg(long, default_value_t = 5)]
        keep: usize,
        /// Only say what would be removed
        #[arg(short = 'n', long)]
        dry_run: bool,
        #[command(flatten)]
        carry: Carry,
    },
    /// Follow a channel of a repository
    Follow(FollowArgs),
    /// Set who is told what happens, or say who is
    Notify {
        /// Address that gets each event as JSON, by POST
        #[arg(long, value_name = "URL")]
        webhook: Option<String>,
        /// The message, with {what}, {package}, {version}, {detail} and {time}
        #[arg(long)]
        template: Option<String>,
        /// Only this kind of event, such as `failed`
        #[arg(long, value_name = "WHAT")]
        only: Vec<String>,
        /// Tell nobody any more
        #[arg(long)]
        none: bool,
        /// A program and its arguments, such as `notify-send kura`; the message comes last
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Say of each version why it is not installed
    Check {},
    /// Say what would be installed
    Plan {
        /// Packages, as `tool` or `tool@^1.4`
        packages: Vec<String>,
    },
    /// Install packages, whatever phase and window say
    Install {
        /// Packages, as `tool` or `tool@^1.4`
        #[arg(required = true)]
        packages: Vec<String>,
        /// Resolve conflicts by sidecars, and replace changed data
        #[arg(long)]
        force: bool,
        /// Only say what would be done
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Bring what is installed up to date
    Update {},
    /// Take the last install of a package back
    Rollback {
        /// The package
        package: String,
    },
    /// Compare what is there with what was installed
    Verify {},
    /// Keep a package at a version (`tool@1.2.0`), or (`tool`) no longer
    Pin {
        /// The release, or the package
        release: String,
    },
    /// Never install a release by itself
    Skip {
        /// The release, as `tool@1.2.0`
        release: String,
    },
    /// Say something of a release to its publisher
    Feedback {
        /// The release, as `tool@1.2.0`
        release: String,
        /// What
        note: String,
    },
    /// Mark what happened as seen
    Ack {
        /// Up to this event
        number: Option<u64>,
    },
    /// List what is installed, and what happened
    History {},
}

#[derive(Args)]
pub(super) struct FollowArgs {
    /// The repository: a directory, https://…, s3://…, or `store`
    pub(super) repository: String,
    /// The file of trust, which came from the publisher by a way that is trusted
    #[arg(long, value_name = "FILE")]
    pub(super) trust: PathBuf,
    /// The ring that this client is in
    #[arg(long)]
    pub(super) ring: Option<String>,
    /// How often a mount looks for something new, such as 1h
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    pub(super) every: Option<u64>,
    /// A mount installs what is new for this client, instead of only telling of it
    #[arg(long, requires = "every")]
    pub(super) install: bool,
    /// Fetch at most so much a second, such as 2MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(super) limit: Option<u64>,
    /// A file with the token that the server asks for
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// A file with this client's certificates, in PEM
    #[arg(long, value_name = "FILE", requires = "client_key")]
    pub(super) client_cert: Option<PathBuf>,
    /// A file with the key of the first of them, in PEM
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    pub(super) client_key: Option<PathBuf>,
    /// A file with the certificates that the server's must lead to, in PEM
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
}
