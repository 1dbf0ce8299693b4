//! `kura sealed`: several JSON documents in one file.

mod input;
mod tell;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

pub use self::input::known_documents;
use self::input::{
    AccessArgs, DocumentArgs, IdArgs, KnownArgs, NEW_PASSWORD, STDIN, parse_ids, password, read_document,
};
use self::tell::{print_document, tell, tell_header, tell_ids, tell_swept, tell_verified, tell_written};
use super::Context;
use super::config::absolute;
use super::secret::obtain_password;
use crate::apps::sealed::{
    self, Credentials, Damage, LOCK_TIMEOUT_MS, Machine, Place, Settings, ShareIds, SystemProcesses,
};
use crate::base::clock::SystemClock;
use crate::base::disk::RealDisk;
use crate::control::{Exit, Failure};
use crate::crypto::sharing::Field;
use crate::crypto::slots::KdfParams;

/// Keep several JSON documents in one file, each behind a password and share ids of its own
///
/// A password together with the document's share ids opens exactly one document. Nobody can see from
/// the file how many there are. Keep the ids as you keep the password: without both, nobody can help.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura sealed init notes.sealed --document first.json          prints the share ids
  kura sealed read notes.sealed --ids 3,17,40,41,52,55,60,63
  kura sealed update notes.sealed --ids ... --document changed.json
  kura sealed create notes.sealed --known known.txt --rest-is-unused --document second.json
  kura sealed verify notes.sealed

The password is asked for, or comes from KURA_SEALED_PASSWORD, KURA_SEALED_PASSWORD_FILE or
KURA_SEALED_PASSWORD_COMMAND; a new one from KURA_SEALED_NEW_PASSWORD and so on. Ids may come from
KURA_SEALED_IDS, since other users of the machine see command lines. Backups of what was replaced
lie in .kura-sealed beside the file until you remove them; they open with what opened it then. A
file of which others have earlier copies shows them which slots changed since; `kura sealed refresh`
changes those of several documents at once.")]
pub struct SealedArgs {
    #[command(subcommand)]
    command: SealedCommand,
}

#[derive(Subcommand)]
enum SealedCommand {
    /// Make a file, with a first document or none
    ///
    /// A file without a document looks like any other; only that somebody altered it on purpose cannot
    /// be noticed, since what would show it is kept in the documents.
    Init {
        /// The file, which must not exist
        file: PathBuf,
        /// How many slots it has; ids are 1 to this
        #[arg(long, default_value_t = 64)]
        slots: u16,
        /// Largest document, in KiB
        #[arg(long, value_name = "KIB", default_value_t = 16)]
        capacity_kib: usize,
        /// Field of the shares; `prime` for more than 255 slots
        #[arg(long, value_enum, default_value_t = FieldName::Gf256)]
        field: FieldName,
        /// Memory that each guess of a password shall cost, in MiB (8 to 1024)
        #[arg(long, value_name = "MIB", default_value_t = 24)]
        kdf_memory_mib: u32,
        /// The first document, a JSON object; `-` is standard input
        #[arg(long, value_name = "FILE")]
        document: Option<PathBuf>,
        #[command(flatten)]
        access: AccessArgs,
    },
    /// Put a new document into a file
    ///
    /// Documents that are there already have to be named with --known, since nobody can see their slots;
    /// --rest-is-unused says that there are no others. Without --known it is the file's first document.
    Create {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        known: KnownArgs,
        #[command(flatten)]
        access: AccessArgs,
        #[command(flatten)]
        document: DocumentArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print a document
    Read {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        ids: IdArgs,
        /// Read it also from a damaged file, if enough of its shares are left
        #[arg(long)]
        accept_damage: bool,
    },
    /// Replace a document; all others stay byte for byte
    Update {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        ids: IdArgs,
        #[command(flatten)]
        document: DocumentArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Change the password of a document
    Passwd {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        ids: IdArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Check a file: for accidents, and with the ids of a document for whatever else was done to it
    Verify {
        /// The file
        file: PathBuf,
        /// Share ids of a document
        #[arg(long, env = "KURA_SEALED_IDS", hide_env_values = true, value_parser = parse_ids)]
        ids: Option<ShareIds>,
    },
    /// Print what can be known of a file without a password: its header
    Info {
        /// The file
        file: PathBuf,
    },
    /// Write documents anew without changing them, so that nobody sees which one was changed
    Refresh {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        known: KnownArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Remove the temporary files that crashed commands left beside the files of a directory
    Cleanup {
        /// The directory
        #[arg(default_value = ".")]
        directory: PathBuf,
        /// After this time a lock whose holder cannot be seen to live on is given up
        #[arg(long, value_name = "SECONDS", default_value_t = LOCK_TIMEOUT_MS / 1000)]
        timeout_seconds: u64,
    },
}

#[derive(Args)]
struct OutputArgs {
    /// Write here instead of into the file itself
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Keep no backup
    #[arg(long)]
    no_backup: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum FieldName {
    /// Bytes; up to 255 slots
    Gf256,
    /// Integers modulo 2^256 - 189; up to 4096 slots
    Prime,
}

/// Argon2id passes over the memory.
const KDF_PASSES: u32 = 8;

/// Runs `kura sealed`.
pub fn run(context: &Context, args: SealedArgs) -> Result<Exit, Failure> {
    let machine =
        Machine { disk: Arc::new(RealDisk), clock: Arc::new(SystemClock), processes: Arc::new(SystemProcesses) };
    match args.command {
        SealedCommand::Init { file, slots, capacity_kib, field, kdf_memory_mib, document, access } => {
            let settings = settings(slots, capacity_kib, field, kdf_memory_mib)?;
            init(context, &machine, &writable(&file)?, &settings, document.as_deref(), access)
        }
        SealedCommand::Create { file, known, access, document, output } => {
            if known.is_from_stdin() && document.document == Path::new(STDIN) {
                return Err(Failure::new(Exit::Usage, "--known and --document cannot both be standard input"));
            }
            let place = output.place(&file)?;
            if !place.input.exists() {
                let failure = Failure::new(Exit::Other, format!("{} is missing", place.input.display()));
                return Err(failure.hint("make it with `kura sealed init`"));
            }
            let json = document.read()?;
            let others = (&known.read()?[..], known.rest_is_unused);
            tell_ids(context, &sealed::add_document(&machine, &place, others, &access.obtain()?, &json)?)
        }
        SealedCommand::Read { file, ids, accept_damage } => {
            let damage = if accept_damage { Damage::Accept } else { Damage::Refuse };
            let found = sealed::read_document(&machine, &place(&file)?, &ids.credentials()?, damage)?;
            print_document(context, &found)
        }
        SealedCommand::Update { file, ids, document, output } => {
            let (place, json) = (output.place(&file)?, document.read()?);
            tell_written(context, &sealed::update_file(&machine, &place, &json, &ids.credentials()?)?)
        }
        SealedCommand::Passwd { file, ids, output } => {
            let (place, old) = (output.place(&file)?, ids.credentials()?);
            let new = obtain_password(&NEW_PASSWORD, "New password of the document", true)?;
            tell_written(context, &sealed::change_password(&machine, &place, &old, new)?)
        }
        SealedCommand::Verify { file, ids } => {
            let credentials =
                ids.map(|ids| Ok::<_, Failure>(Credentials { password: password()?, ids })).transpose()?;
            tell_verified(context, &sealed::verify_file(&machine, &place(&file)?, credentials.as_ref())?)
        }
        SealedCommand::Info { file } => tell_header(context, &sealed::read_header(&machine, &place(&file)?)?),
        SealedCommand::Refresh { file, known, output } => {
            let (place, others) = (output.place(&file)?, known.read()?);
            let done = sealed::refresh_file(&machine, &place, &others, known.rest_is_unused)?;
            tell(context, "written anew", &done, json!({}))
        }
        SealedCommand::Cleanup { directory, timeout_seconds } => {
            let directory = place(&directory)?;
            if !directory.is_dir() {
                return Err(Failure::new(Exit::Usage, format!("{} is no directory", directory.display())));
            }
            let dir = directory.join(sealed::WORK_DIR);
            check_work_dir(&dir)?;
            let swept = sealed::cleanup_stale_temp_files(&machine, &dir, timeout_seconds.saturating_mul(1000))?;
            tell_swept(context, &swept)
        }
    }
}

fn settings(slots: u16, capacity_kib: usize, field: FieldName, kdf_memory_mib: u32) -> Result<Settings, Failure> {
    let kdf = KdfParams::new(kdf_memory_mib.saturating_mul(1024), KDF_PASSES, 1).ok_or_else(|| {
        Failure::new(Exit::Usage, "--kdf-memory-mib must be between 8 and 1024").hint("24 is the default")
    })?;
    let field = match field {
        FieldName::Gf256 => Field::Gf256,
        FieldName::Prime => Field::Prime,
    };
    Ok(Settings { field, slots, capacity: capacity_kib.saturating_mul(1024), kdf })
}

fn init(
    context: &Context,
    machine: &Machine,
    path: &Path,
    settings: &Settings,
    document: Option<&Path>,
    access: AccessArgs,
) -> Result<Exit, Failure> {
    if let Some(document) = document {
        let json = read_document(document)?;
        return tell_ids(context, &sealed::create_file(machine, path, settings, &access.obtain()?, &json)?);
    }
    if access.is_given() {
        let failure =
            Failure::new(Exit::Usage, "--ids, --shares and --threshold are of a document, and there is no --document");
        return Err(failure.hint("make the file without them; `kura sealed create` puts documents in"));
    }
    let made = sealed::init_file(machine, path, settings)?;
    tell(context, "made; `kura sealed create --rest-is-unused` puts the first document in", &made, json!({}))
}

/// The path itself, not of a symbolic link to it: replacing a link would leave the file as it is.
fn place(file: &Path) -> Result<PathBuf, Failure> {
    let path = absolute(file)?;
    let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
    let in_real_parent = parent.zip(path.file_name()).map(|(parent, name)| parent.join(name));
    Ok(path.canonicalize().ok().or(in_real_parent).unwrap_or(path))
}

/// Refuses a work directory that somebody else could put links or files into.
fn check_work_dir(dir: &Path) -> Result<(), Failure> {
    let Ok(found) = std::fs::symlink_metadata(dir) else { return Ok(()) };
    let own = found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o077 == 0;
    if own {
        return Ok(());
    }
    Err(Failure::new(Exit::Denied, format!("{} is not a directory of yours alone (0700)", dir.display()))
        .hint("move it away, or `chmod 700` it if it is yours"))
}

/// A place to write to. Its directory is there: nobody wants one for a slip of the finger.
fn writable(file: &Path) -> Result<PathBuf, Failure> {
    let path = place(file)?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    if !dir.is_dir() {
        return Err(Failure::new(Exit::Usage, format!("there is no directory {}", dir.display())));
    }
    check_work_dir(&sealed::work_dir(&path))?;
    Ok(path)
}

impl OutputArgs {
    fn place(&self, file: &Path) -> Result<Place, Failure> {
        let input = place(file)?;
        let output = writable(self.output.as_deref().unwrap_or(file))?;
        Ok(Place { input, output, backup: !self.no_backup })
    }
}
