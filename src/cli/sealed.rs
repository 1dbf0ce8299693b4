//! `kura sealed`: several JSON documents in one file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use zeroize::Zeroizing;

use super::Context;
use super::config::{SEALED_NEW_PASSWORD_VAR, SEALED_PASSWORD_VAR, absolute};
use super::output::size;
use super::secret::{PasswordVars, obtain_password};
use crate::apps::sealed::{
    self, Credentials, Damage, LOCK_TIMEOUT_MS, Machine, NewAccess, NewIds, Outcome, Place, Settings, ShareIds,
    SystemProcesses, Written,
};
use crate::base::clock::SystemClock;
use crate::base::disk::RealDisk;
use crate::control::{Exit, Failure};
use crate::crypto::sharing::Field;
use crate::crypto::slots::{KdfParams, Secret};

/// Keep several JSON documents in one file, each behind a password and share ids of its own
///
/// A password together with the document's share ids opens exactly one document. Nobody can see from
/// the file how many there are. Keep the ids as you keep the password: without both, nobody can help.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura sealed create notes.sealed --document first.json        prints the share ids
  kura sealed read notes.sealed --ids 3,17,40,41,52,55,60,63
  kura sealed update notes.sealed --ids ... --document changed.json
  kura sealed add notes.sealed --known known.txt --rest-is-unused --document second.json
  kura sealed verify notes.sealed

The password is asked for, or comes from KURA_SEALED_PASSWORD, KURA_SEALED_PASSWORD_FILE or
KURA_SEALED_PASSWORD_COMMAND; a new one from KURA_SEALED_NEW_PASSWORD and so on. Ids may come from
KURA_SEALED_IDS, since other users of the machine see command lines. Backups of what was replaced
lie in .kura-sealed beside the file until you remove them. A file of which others have earlier copies shows them which
slots changed since; `kura sealed refresh` changes those of several documents at once.")]
pub struct SealedArgs {
    #[command(subcommand)]
    command: SealedCommand,
}

#[derive(Subcommand)]
enum SealedCommand {
    /// Make a file with its first document
    Create {
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
        #[command(flatten)]
        access: AccessArgs,
        #[command(flatten)]
        document: DocumentArgs,
    },
    /// Add a document to a file
    Add {
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
    Clean {
        /// The directory
        #[arg(default_value = ".")]
        directory: PathBuf,
    },
}

#[derive(Args)]
struct IdArgs {
    /// Share ids of the document, as 3,17,40
    #[arg(long, env = "KURA_SEALED_IDS", hide_env_values = true, value_parser = parse_ids)]
    ids: ShareIds,
}

#[derive(Args)]
struct AccessArgs {
    /// Take these share ids instead of drawing them at random
    #[arg(long, conflicts_with = "shares", value_parser = parse_ids)]
    ids: Option<ShareIds>,
    /// How many share ids to draw
    #[arg(long, default_value_t = 8)]
    shares: usize,
    /// How many intact shares are enough to read the document [default: more than half]
    #[arg(long)]
    threshold: Option<u16>,
}

#[derive(Args)]
struct DocumentArgs {
    /// The JSON object; `-` is standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    document: PathBuf,
}

#[derive(Args)]
struct KnownArgs {
    /// Documents that are there: a file of lines, each with ids, a space, and the password
    #[arg(long, value_name = "FILE")]
    known: PathBuf,
    /// There are no other documents; if there are, this destroys them
    #[arg(long)]
    rest_is_unused: bool,
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

/// Longest document and longest file of known documents, in bytes.
const INPUT_LEN_MAX: usize = 16 * 1024 * 1024;
const INPUT_LEN_FIRST: usize = 64 * 1024;
/// Argon2id passes over the memory.
const KDF_PASSES: u32 = 8;

const PASSWORD: PasswordVars = PasswordVars {
    value: SEALED_PASSWORD_VAR,
    file: "KURA_SEALED_PASSWORD_FILE",
    command: "KURA_SEALED_PASSWORD_COMMAND",
};
const NEW_PASSWORD: PasswordVars = PasswordVars {
    value: SEALED_NEW_PASSWORD_VAR,
    file: "KURA_SEALED_NEW_PASSWORD_FILE",
    command: "KURA_SEALED_NEW_PASSWORD_COMMAND",
};

fn parse_ids(text: &str) -> Result<ShareIds, String> {
    ShareIds::parse(text).map_err(|error| error.to_string())
}

/// Runs `kura sealed`.
pub fn run(context: &Context, args: SealedArgs) -> Result<Exit, Failure> {
    let machine =
        Machine { disk: Arc::new(RealDisk), clock: Arc::new(SystemClock), processes: Arc::new(SystemProcesses) };
    match args.command {
        SealedCommand::Create { file, slots, capacity_kib, field, kdf_memory_mib, access, document } => {
            let kdf = KdfParams::new(kdf_memory_mib.saturating_mul(1024), KDF_PASSES, 1).ok_or_else(|| {
                Failure::new(Exit::Usage, "--kdf-memory-mib must be between 8 and 1024").hint("24 is the default")
            })?;
            let field = match field {
                FieldName::Gf256 => Field::Gf256,
                FieldName::Prime => Field::Prime,
            };
            let settings = Settings { field, slots, capacity: capacity_kib.saturating_mul(1024), kdf };
            let json = document.read()?;
            let made = sealed::create_file(&machine, &writable(&file)?, &settings, &access.obtain()?, &json)?;
            tell_ids(context, &made)
        }
        SealedCommand::Add { file, known, access, document, output } => {
            let (place, json) = (output.place(&file)?, document.read()?);
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
        SealedCommand::Verify { file, ids } => verify(context, &machine, &file, ids),
        SealedCommand::Refresh { file, known, output } => {
            let (place, others) = (output.place(&file)?, known.read()?);
            let done = sealed::refresh_file(&machine, &place, &others, known.rest_is_unused)?;
            tell(context, "written anew", &done, json!({}))
        }
        SealedCommand::Clean { directory } => {
            let dir = place(&directory)?.join(sealed::WORK_DIR);
            check_work_dir(&dir)?;
            let swept = sealed::cleanup_stale_temp_files(&machine, &dir, LOCK_TIMEOUT_MS)?;
            if context.output.json {
                context.output.json(&json!({ "removed": swept.removed, "in_use": swept.in_use }))?;
            } else {
                context.output.note(&format!(
                    "{} temporary files removed, {} files are being worked on",
                    swept.removed, swept.in_use
                ))?;
            }
            Ok(Exit::Ok)
        }
    }
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

/// A place to write to.
fn writable(file: &Path) -> Result<PathBuf, Failure> {
    let path = place(file)?;
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

impl IdArgs {
    fn credentials(&self) -> Result<Credentials, Failure> {
        Ok(Credentials { password: password()?, ids: self.ids.clone() })
    }
}

fn password() -> Result<Secret, Failure> {
    obtain_password(&PASSWORD, "Password of the document", false)
}

impl AccessArgs {
    fn obtain(self) -> Result<NewAccess, Failure> {
        let count = self.ids.as_ref().map_or(self.shares, |ids| ids.as_slice().len());
        let usual = u16::try_from(count / 2 + 1).unwrap_or(u16::MAX);
        Ok(NewAccess {
            password: obtain_password(&PASSWORD, "Password of the new document", true)?,
            ids: self.ids.map_or(NewIds::Draw(self.shares), NewIds::Chosen),
            threshold: self.threshold.unwrap_or(usual),
        })
    }
}

impl DocumentArgs {
    fn read(&self) -> Result<Zeroizing<Vec<u8>>, Failure> {
        if self.document == Path::new("-") {
            return read_wiped(io::stdin().lock(), INPUT_LEN_FIRST, "standard input");
        }
        open_wiped(&self.document)
    }
}

impl KnownArgs {
    /// Lines of ids, a space, and the password, which may hold spaces.
    fn read(&self) -> Result<Vec<Credentials>, Failure> {
        let bytes = open_wiped(&self.known)?;
        let mut known = Vec::new();
        for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                continue;
            }
            let bad = |reason: &str| {
                Failure::new(Exit::Usage, format!("{}, line {}: {reason}", self.known.display(), number + 1))
                    .hint("a line is for example `3,17,40 correct horse battery`")
            };
            let space = line.iter().position(|byte| *byte == b' ').ok_or_else(|| bad("there is no password"))?;
            let ids = std::str::from_utf8(&line[..space]).map_err(|_| bad("there are no ids"))?;
            let ids = ShareIds::parse(ids).map_err(|error| bad(&error.to_string()))?;
            known.push(Credentials { password: Secret::new(line[space + 1..].to_vec()), ids });
        }
        Ok(known)
    }
}

fn open_wiped(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let what = path.display().to_string();
    let file = File::open(path).map_err(|error| unreadable(&what, &error))?;
    let len = file.metadata().ok().and_then(|found| usize::try_from(found.len()).ok()).unwrap_or(0);
    // One byte more, in which the end shows.
    read_wiped(file, len.saturating_add(1).clamp(INPUT_LEN_FIRST, INPUT_LEN_MAX), &what)
}

/// Reads everything, leaving no copy behind when the buffer grows.
fn read_wiped(mut source: impl Read, len_first: usize, what: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut bytes = Zeroizing::new(vec![0; len_first]);
    let mut filled = 0;
    loop {
        if filled == bytes.len() {
            if filled >= INPUT_LEN_MAX {
                return Err(Failure::new(Exit::Usage, format!("{what} is longer than {INPUT_LEN_MAX} bytes")));
            }
            let mut larger = Zeroizing::new(vec![0; filled * 2]);
            larger[..filled].copy_from_slice(&bytes);
            bytes = larger;
        }
        match source.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(what, &error)),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn unreadable(what: &str, error: &io::Error) -> Failure {
    Failure::new(Exit::Usage, format!("{what} cannot be read: {error}"))
}

fn tell<T>(context: &Context, text: &str, outcome: &Outcome<T>, mut data: serde_json::Value) -> Result<Exit, Failure> {
    if context.output.json {
        data["uuid"] = json!(outcome.uuid.to_string());
        data["backup"] = json!(outcome.backup.as_ref().map(|path| path.display().to_string()));
        context.output.json(&data)?;
    } else {
        context.output.note(text)?;
        if let Some(backup) = &outcome.backup {
            context.output.note(&format!("what was replaced is kept as {}", backup.display()))?;
        }
    }
    Ok(Exit::Ok)
}

fn tell_ids(context: &Context, made: &Outcome<ShareIds>) -> Result<Exit, Failure> {
    let ids = made.result.as_slice();
    if context.output.json {
        return tell(context, "", made, json!({ "ids": ids }));
    }
    let ids: Vec<String> = ids.iter().map(u16::to_string).collect();
    tell(context, "sealed", made, json!({}))?;
    context.output.line(&format!("share ids: {}", ids.join(",")))?;
    context.output.note("they and the password open the document; neither can be found out or replaced")?;
    Ok(Exit::Ok)
}

fn tell_written(context: &Context, done: &Outcome<Written>) -> Result<Exit, Failure> {
    let Written { revision, free } = done.result;
    let text = format!("written as revision {revision}; {} are free", size(free as u64));
    tell(context, &text, done, json!({ "revision": revision, "bytes_free": free }))
}

fn print_document(context: &Context, found: &sealed::Document) -> Result<Exit, Failure> {
    if context.output.json {
        let (seconds, _) = found.changed.parts();
        let changed = jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default();
        let front = format!("{{\"revision\":{},\"changed\":\"{changed}\",\"document\":", found.revision);
        let mut text = Zeroizing::new(Vec::with_capacity(front.len() + found.json.len() + 2));
        text.extend_from_slice(front.as_bytes());
        text.extend_from_slice(&found.json);
        text.extend_from_slice(b"}\n");
        context.output.bytes(&text)?;
    } else {
        context.output.bytes(&found.json)?;
        if !found.json.ends_with(b"\n") {
            context.output.bytes(b"\n")?;
        }
    }
    Ok(Exit::Ok)
}

fn verify(context: &Context, machine: &Machine, file: &Path, ids: Option<ShareIds>) -> Result<Exit, Failure> {
    let credentials = ids.map(|ids| Ok::<_, Failure>(Credentials { password: password()?, ids })).transpose()?;
    let info = sealed::verify_file(machine, &place(file)?, credentials.as_ref())?;
    let header = &info.header;
    if context.output.json {
        context.output.json(&json!({
            "uuid": header.uuid.to_string(),
            "slots": header.slots,
            "capacity_bytes": header.capacity(),
            "file_bytes": header.file_len(),
            "authentic": info.authentic,
        }))?;
        return Ok(Exit::Ok);
    }
    let found = if info.authentic {
        "whole, and as the owners of its documents left it"
    } else {
        "whole; whether somebody altered it on purpose shows only with --ids and password"
    };
    context.output.line(&format!(
        "{}: {found}\n{} slots, documents up to {}",
        header.uuid,
        header.slots,
        size(header.capacity() as u64)
    ))?;
    Ok(Exit::Ok)
}
