//! `kura init`.

use std::path::Path;

use clap::Args;
use serde_json::json;

use super::config::store_url;
use super::output::warn;
use super::secret::{self, Key};
use super::{Context, mounts};
use crate::control::{Exit, Failure};
use crate::crypto::slots::{KdfParams, NewSlot};
use crate::store::StoreUrl;
use crate::workspace::{InitOptions, InitReport, Workspace, is_known};

/// Make a new workspace in a directory or in S3
///
/// The store is encrypted with keys that only the passphrase (or key file) and the recovery code
/// open. The recovery code is shown once: write it down.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura init                                                your default workspace
  kura init /backup/work                                   in a directory
  kura init 's3://my-bucket/work?region=eu-central-1'      in S3
  head -c 32 /dev/urandom > key; kura init --key-file key /backup/work")]
pub struct InitArgs {
    /// The directory or s3://BUCKET/PREFIX [default: -w, KURA_STORE, or your default workspace]
    store: Option<String>,
    /// What to call the first key, e.g. `alice's laptop`
    #[arg(long)]
    label: Option<String>,
    /// Make it also where another workspace was seen before that is not there now
    #[arg(long)]
    anew: bool,
    /// Make no recovery code; a lost passphrase is a lost workspace then
    #[arg(long)]
    no_recovery_code: bool,
    /// Memory that each guess of a passphrase shall cost, in MiB (8 to 1024)
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    kdf_memory_mib: u32,
}

/// Runs `kura init`.
pub fn run(context: &Context, args: &InitArgs) -> Result<Exit, Failure> {
    let named = args.store.as_ref().or(context.common.workspace.as_ref()).or(context.config.store.as_ref());
    let store = match named {
        Some(text) => store_url(text)?,
        None => StoreUrl::Dir(context.config.default_store()?),
    };
    refuse_inside_a_mount(&store)?;
    let kdf = kdf(args.kdf_memory_mib)?;
    let key = secret::obtain_new(&context.common)?;
    let options = InitOptions {
        was_there: !args.anew && is_known(&context.config.state_dir, &store.to_string()),
        recovery_code: !args.no_recovery_code,
        kdf,
        ..options(&key, args.label.clone())
    };
    let report = Workspace::init(&store, options)?;
    tell(context, &store, &report)?;
    Ok(Exit::Ok)
}

/// Argon2id passes over the memory.
const KDF_PASSES: u32 = 3;

/// What passphrases shall cost.
pub fn kdf(memory_mib: u32) -> Result<KdfParams, Failure> {
    KdfParams::new(memory_mib.saturating_mul(1024), KDF_PASSES, 1).ok_or_else(|| {
        Failure::new(Exit::Usage, "--kdf-memory-mib must be between 8 and 1024").hint("64 is the default")
    })
}

/// A recovery code, and what to do with it.
pub fn recovery_text(code: &str) -> String {
    format!(
        "\nRecovery code, shown only this once:\n\n    {code}\n\n\
         It opens the workspace when the passphrase or key file is lost. Write it down and keep it\n\
         apart from this machine. Whoever has it can read everything; without passphrase and code\n\
         nobody can, and nobody can help."
    )
}

/// A store inside of a mounted workspace would store itself.
fn refuse_inside_a_mount(store: &StoreUrl) -> Result<(), Failure> {
    let StoreUrl::Dir(path) = store else { return Ok(()) };
    match mounts::mount_around(&super::door::resolved(path)?) {
        Some(mount) => Err(Failure::new(
            Exit::Usage,
            format!("{} lies inside of the workspace mounted at {}", path.display(), mount.display()),
        )
        .hint("choose a directory outside of every mounted workspace")),
        None => Ok(()),
    }
}

/// Makes the default workspace at its first use.
pub fn make_default(context: &Context, store: &Path, key: &Key) -> Result<(), Failure> {
    let url = StoreUrl::Dir(store.to_owned());
    let report = Workspace::init(&url, options(key, None))?;
    tell(context, &url, &report)
}

fn options(key: &Key, label: Option<String>) -> InitOptions {
    let label = label.unwrap_or_else(|| match key {
        Key::File(_) => "key file".to_owned(),
        Key::Passphrase(_) | Key::Recovery(_) => "passphrase".to_owned(),
    });
    InitOptions::new(vec![NewSlot { label, credential: key.credential() }])
}

fn tell(context: &Context, store: &StoreUrl, report: &InitReport) -> Result<(), Failure> {
    let output = &context.output;
    if !report.conditional_writes {
        warn(super::daemon::SINGLE_WRITER);
    }
    let code = report.recovery_code.as_deref();
    if output.json {
        return output.json(&json!({
            "workspace": report.workspace.to_string(),
            "store": store.to_string(),
            "recovery_code": code,
            "conditional_writes": report.conditional_writes,
        }));
    }
    output.note(&format!("made workspace {} in {store}", report.workspace))?;
    match code {
        Some(code) => output.line(&recovery_text(code)),
        None => Ok(()),
    }
}
