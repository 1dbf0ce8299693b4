//! `kura key`: the key slots of a workspace.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::door::{Door, Purpose, Target, workspace_options};
use super::output::{local_time, warn};
use super::progress::Bar;
use super::secret::{self, Key};
use super::{Context, keyring, mounts};
use crate::control::{Exit, Failure, Reply, Request, parse_size, reencryption_text};
use crate::crypto::slots::{Credential, CredentialKind, KdfParams, NewSlot, RecoveryCode};
use crate::store::StoreUrl;
use crate::workspace::{KeySlots, SlotInfo, SlotState};

/// Manage what opens the workspace: passphrases, key files, the keyring, the recovery code
///
/// Works on the store, mounted or not, and asks for one of the present secrets. A slot opens
/// everything; slots are added, removed and changed without touching data.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura key list
  kura key add --label 'bob'                a passphrase for somebody else
  kura key add --new-key-file ~/backup.key  a file of at least 32 random bytes
  kura key add --to-keyring                 opens with --keyring from then on
  kura key passwd                           changes the passphrase that you give
  kura key remove bob --revoke              and shut out whoever kept a copy
  kura key rotate                           new writes get a new key
  kura key recovery                         a new recovery code; the old one is void")]
pub struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Subcommand)]
enum KeyCommand {
    /// List the key slots
    List {},
    /// Add a key slot
    Add {
        /// What to call it, e.g. `alice's laptop`
        #[arg(long)]
        label: Option<String>,
        /// It opens with a random key in the keyring of this session
        #[arg(long, conflicts_with = "new_key_file")]
        to_keyring: bool,
        #[command(flatten)]
        new: NewKey,
    },
    /// Remove a key slot
    Remove {
        /// Its label, or the first digits of its id
        slot: String,
        /// Begin a new key epoch as well, which the removed slot cannot open even from a copy of the store
        #[arg(long)]
        revoke: bool,
    },
    /// Change the secret of the key slot that you open
    Passwd {
        #[command(flatten)]
        new: NewKey,
    },
    /// Begin a new key epoch: everything written from now on is sealed under a new key
    Rotate {
        /// Then store everything anew under it
        #[arg(long)]
        reencrypt: bool,
        #[command(flatten)]
        pace: Pace,
    },
    /// Store everything anew that is sealed under an earlier epoch's key
    ///
    /// Beside all other use; a mount does it in the background and `kura status` tells how far it is.
    /// It can be ended and repeated at any time.
    Reencrypt {
        #[command(flatten)]
        pace: Pace,
    },
    /// Make a new recovery code; the one before opens nothing any more
    Recovery {},
}

/// What opens the slot from now on; a passphrase when nothing is named.
#[derive(Args)]
struct NewKey {
    /// It opens with the content of this file
    #[arg(long, value_name = "FILE")]
    new_key_file: Option<PathBuf>,
    /// Memory that each guess of a passphrase shall cost, in MiB (8 to 1024)
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    kdf_memory_mib: u32,
}

/// How fast.
#[derive(Args)]
struct Pace {
    /// At most so many bytes a second, e.g. 20MiB/s
    #[arg(long, value_name = "SIZE/s", value_parser = parse_rate)]
    limit: Option<u64>,
}

fn parse_rate(text: &str) -> Result<u64, String> {
    parse_size(text.strip_suffix("/s").unwrap_or(text)).and_then(|rate| match rate {
        0 => Err("at no bytes a second it would never end".to_owned()),
        rate => Ok(rate),
    })
}

const RECOVERY_LABEL: &str = "recovery code";

/// Runs `kura key`.
pub fn run(context: &Context, args: &KeyArgs) -> Result<Exit, Failure> {
    let store = store_of(context)?;
    let slots = KeySlots::open(&workspace_options(context, &store)?)?;
    match &args.command {
        KeyCommand::List {} => list(context, &slots)?,
        KeyCommand::Add { label, to_keyring, new } => {
            let keyring = to_keyring.then(|| store.to_string());
            add(context, &slots, label.as_ref(), keyring.as_deref(), new)?;
        }
        KeyCommand::Remove { slot, revoke } => remove(context, &slots, slot, *revoke)?,
        KeyCommand::Passwd { new } => {
            slots.change(&new.obtain()?.credential(), new.kdf()?)?;
            let text = format!("the secret of key slot {} is changed", slots.own());
            done(context, &text, &json!({ "slot": slots.own().to_string() }))?;
        }
        KeyCommand::Rotate { reencrypt: also, pace } => {
            let epoch = slots.rotate()?;
            done(context, &rotated(epoch), &json!({ "epoch": epoch }))?;
            if *also {
                return reencrypt(context, pace);
            }
        }
        KeyCommand::Reencrypt { pace } => return reencrypt(context, pace),
        KeyCommand::Recovery {} => recovery(context, &slots)?,
    }
    Ok(Exit::Ok)
}

/// In the background of a mount, else here with a bar.
fn reencrypt(context: &Context, pace: &Pace) -> Result<Exit, Failure> {
    let (door, _) = Door::open(context, Purpose::Write)?;
    let reply = match &door {
        Door::Mounted(_) => door.ask(&Request::Reencrypt { limit: pace.limit })?,
        Door::Opened(workspace, _) => {
            let bar = Bar::new(&context.output, "Re-encrypting", None);
            let done = workspace.reencrypt(pace.limit, &|| false, &mut |done| bar.set(done.bytes))?;
            Reply::done(reencryption_text(&done), json!({ "objects": done.objects, "bytes": done.bytes }))
        }
    };
    let closed = door.close();
    Ok(context.output.reply(&reply)?.and(closed?))
}

/// The store, also that of a mount: keys are changed beside it.
fn store_of(context: &Context) -> Result<StoreUrl, Failure> {
    match Target::find(context)? {
        Target::Store(store) => Ok(store),
        Target::Mount(mount) => {
            let record = mounts::record_of_mountpoint(&context.config.state_dir, &mount);
            let record = record.ok_or_else(|| {
                Failure::new(Exit::Other, format!("it is not known which store is mounted at {}", mount.display()))
                    .hint("name the store with -w")
            })?;
            super::config::store_url(&record.store)
        }
    }
}

impl NewKey {
    fn obtain(&self) -> Result<Key, Failure> {
        match &self.new_key_file {
            Some(path) => secret::read_key_file(path).map(Key::File),
            None => secret::obtain_new_passphrase(),
        }
    }

    fn kdf(&self) -> Result<KdfParams, Failure> {
        super::init::kdf(self.kdf_memory_mib)
    }
}

fn done(context: &Context, text: &str, data: &serde_json::Value) -> Result<(), Failure> {
    if context.output.json { context.output.json(data) } else { context.output.note(text) }
}

fn rotated(epoch: u32) -> String {
    format!(
        "key epoch {epoch} has begun: everything written from now on is sealed under its key.\n\
         What is stored already stays readable to whoever held a key before"
    )
}

fn list(context: &Context, slots: &KeySlots) -> Result<(), Failure> {
    let found = slots.list()?;
    if context.output.json {
        let slot = |slot: &SlotInfo| {
            json!({
                "id": slot.id.to_string(), "label": slot.label, "kind": slot.kind.map(|kind| kind.to_string()),
                "created": slot.created.map(rfc3339), "state": state(&slot.state).0, "own": slot.is_own,
            })
        };
        let found: Vec<_> = found.iter().map(slot).collect();
        return context.output.json(&json!({ "epoch": slots.epoch(), "slots": found }));
    }
    for slot in &found {
        let kind = slot.kind.map_or_else(|| "-".to_owned(), |kind| kind.to_string());
        let created = slot.created.map_or_else(|| "-".to_owned(), |time| local_time(&rfc3339(time)));
        let own = if slot.is_own { "  (opened by you)" } else { "" };
        let (_, state) = state(&slot.state);
        let id = &slot.id.to_string()[..8];
        let label = slot.label.as_deref().unwrap_or("-");
        context.output.line(&format!("{id}  {kind:13}  {created}  {label}{own}{state}"))?;
    }
    context.output.note(&format!("key epoch {}", slots.epoch()))
}

/// A stable word, and the same for people.
fn state(state: &SlotState) -> (&'static str, String) {
    match state {
        SlotState::Fit => ("fit", String::new()),
        SlotState::Missing => ("missing", "  MISSING from the store: opens nothing".to_owned()),
        SlotState::Damaged(reason) => ("damaged", format!("  DAMAGED: {reason}")),
        SlotState::LeftOver => ("left-over", "  opens nothing; it was removed, or never added to the end".to_owned()),
    }
}

fn rfc3339(time: crate::base::clock::Timestamp) -> String {
    let (seconds, _) = time.parts();
    jiff::Timestamp::new(seconds, 0).map_or_else(|_| String::new(), |time| time.to_string())
}

fn add(
    context: &Context,
    slots: &KeySlots,
    label: Option<&String>,
    keyring: Option<&str>,
    new: &NewKey,
) -> Result<(), Failure> {
    let usual = match (keyring, &new.new_key_file) {
        (Some(_), _) => "keyring",
        (None, Some(_)) => "key file",
        (None, None) => "passphrase",
    };
    let label = label.cloned().unwrap_or_else(|| usual.to_owned());
    if slots.list()?.iter().any(|slot| slot.label.as_ref() == Some(&label)) {
        return Err(Failure::new(Exit::Usage, format!("a key slot is called `{label}` already"))
            .hint("give another name with --label"));
    }
    let kdf = new.kdf()?;
    let key = keyring.map_or_else(|| new.obtain(), |workspace| keyring::load_or_make(workspace).map(Key::File))?;
    let credential = key.credential();
    let id = slots.add(&NewSlot { label: label.clone(), credential }, kdf)?;
    done(context, &format!("added key slot {id}, `{label}`"), &json!({ "slot": id.to_string(), "label": label }))
}

fn remove(context: &Context, slots: &KeySlots, selector: &str, revoke: bool) -> Result<(), Failure> {
    let id = slots.find(selector)?;
    if id == slots.own() {
        warn("this is the slot that you opened: its secret opens nothing from now on");
    }
    let (text, epoch) = match revoke {
        true => {
            let epoch = slots.revoke(id)?;
            (format!("removed key slot {id}; {}", rotated(epoch)), Some(epoch))
        }
        false => {
            slots.remove(id)?;
            let text = "whoever kept a copy of it can still read what is written; --revoke shuts them out";
            (format!("removed key slot {id}; {text}"), None)
        }
    };
    done(context, &text, &json!({ "slot": id.to_string(), "epoch": epoch }))
}

/// The new code opens, and was shown, before the old ones go.
fn recovery(context: &Context, slots: &KeySlots) -> Result<(), Failure> {
    let is_code = |slot: &&SlotInfo| slot.kind == Some(CredentialKind::RecoveryCode) && slot.label.is_some();
    let old: Vec<_> = slots.list()?.iter().filter(is_code).map(|slot| slot.id).collect();
    let code = RecoveryCode::generate();
    let credential = Credential::RecoveryCode(code.to_secret());
    let id = slots.add(&NewSlot { label: RECOVERY_LABEL.to_owned(), credential }, KdfParams::default())?;
    let text = code.to_text();
    if context.output.json {
        context.output.json(&json!({ "slot": id.to_string(), "recovery_code": text.as_str() }))?;
    } else {
        context.output.line(&super::init::recovery_text(&text))?;
    }
    for id in old {
        slots.remove(id)?;
    }
    Ok(())
}
