//! `kura install` and `kura uninstall`: a mount at boot by fstab, or as a service of systemd.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::Context;
use super::config::{absolute, config_home};
use super::mount::places;
use super::output::warn;
use super::units::{fstab_field, unit, unit_name};
use crate::base::disk::{Disk, RealDisk};
use crate::control::{Exit, Failure};

/// Mount a workspace at boot or login: by a line in fstab, or as a service of systemd
///
/// Writes the line or the unit, and says what starts it. What is there and was not written by `kura install` is left
/// alone: then nothing is written. Nobody can be asked for a passphrase at boot, so a key file, the keyring, or a file
/// or command that gives the passphrase has to be named.
#[derive(Args)]
#[command(
    override_usage = "kura install [OPTIONS] <fstab|user|system> [STORE] MOUNTPOINT",
    after_help = "\
Examples:
  kura install user ~/work --passphrase-command 'pass show kura' --dry-run
  kura install system /srv/store /srv/data --key-file /etc/kura/data.key -o allow_other
  kura install fstab 's3://bucket/data?region=eu-central-1' /srv/data --user ann --key-file /home/ann/.kura.key"
)]
pub struct InstallArgs {
    /// A line in /etc/fstab, or a unit of this user's or of the system's systemd
    kind: Kind,
    /// [STORE] MOUNTPOINT, as for `kura mount`
    #[arg(value_name = "STORE MOUNTPOINT", num_args = 1..=2, required = true)]
    places: Vec<String>,
    /// Options of `kura mount -o`; in fstab besides _netdev,nofail,x-systemd.automount
    #[arg(short, value_name = "OPTIONS")]
    options: Vec<String>,
    /// The file whose first line is the passphrase
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// The command that prints the passphrase (not for fstab)
    #[arg(long, value_name = "COMMAND", conflicts_with = "passphrase_file")]
    passphrase_command: Option<String>,
    /// The user whose workspace it is (not for `user`)
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    #[command(flatten)]
    how: How,
}

/// Take away what `kura install` wrote
#[derive(Args)]
#[command(after_help = "Example:\n  kura uninstall user ~/work")]
pub struct UninstallArgs {
    /// What was installed
    kind: Kind,
    /// Where it is mounted
    mountpoint: PathBuf,
    #[command(flatten)]
    how: How,
}

#[derive(Args)]
struct How {
    /// Print what would be written, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Work on the system below this directory
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// What mounts it.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A line in /etc/fstab
    Fstab,
    /// A service of this user, at login
    User,
    /// A service of the system, at boot
    System,
}

/// How a mount is to be made that nobody watches.
pub(super) struct Wanted {
    pub(super) store: String,
    pub(super) mountpoint: PathBuf,
    /// Lists of options, joined by commas.
    pub(super) options: String,
    pub(super) key_file: Option<PathBuf>,
    pub(super) keyring: bool,
    pub(super) passphrase_file: Option<PathBuf>,
    pub(super) passphrase_command: Option<String>,
    pub(super) user: Option<String>,
}

/// What stands before the line in fstab, and at the beginning of a unit.
pub(super) const MARK: &str = "# Written by `kura install`; `kura uninstall` takes it away.";
const FSTAB_OPTIONS: &str = "_netdev,nofail,x-systemd.automount";

/// Runs `kura install`.
pub fn install(context: &Context, args: &InstallArgs) -> Result<Exit, Failure> {
    let wanted = wanted(context, args)?;
    let path = place(args.kind, &wanted.mountpoint, &args.how.root)?;
    let old = read(&path)?;
    let text = match args.kind {
        Kind::Fstab => with_line(&path, &old.clone().unwrap_or_default(), &wanted.mountpoint, Some(&line(&wanted)?))?,
        Kind::User | Kind::System => {
            ours_or_none(&path, old.as_deref())?;
            unit(&wanted, args.kind == Kind::System)?
        }
    };
    if args.how.dry_run {
        context.output.line(&format!("# {}", path.display()))?;
        context.output.bytes(text.as_bytes())?;
        return Ok(Exit::Ok);
    }
    if old.as_deref() != Some(&text) {
        write(&path, &text)?;
    }
    if args.kind == Kind::Fstab && !args.how.root.join("sbin/mount.kura").exists() {
        warn("there is no /sbin/mount.kura, which mount(8) needs: install the package, or the helper by hand");
    }
    said(context, &path, "written", &next(args.kind, &wanted.mountpoint))
}

/// Runs `kura uninstall`.
pub fn uninstall(context: &Context, args: &UninstallArgs) -> Result<Exit, Failure> {
    let mountpoint = absolute(&args.mountpoint)?;
    let path = place(args.kind, &mountpoint, &args.how.root)?;
    let none =
        || Failure::new(Exit::Other, format!("{}: nothing there mounts {}", path.display(), mountpoint.display()));
    let old = read(&path)?.ok_or_else(none)?;
    if args.kind == Kind::Fstab {
        let text = with_line(&path, &old, &mountpoint, None)?;
        if text == old {
            return Err(none());
        }
        if args.how.dry_run {
            context.output.bytes(text.as_bytes())?;
            return Ok(Exit::Ok);
        }
        write(&path, &text)?;
        return said(context, &path, "its line is gone from", "systemctl daemon-reload");
    }
    ours_or_none(&path, Some(&old))?;
    if args.how.dry_run {
        context.output.line(&format!("{} would be removed", path.display()))?;
        return Ok(Exit::Ok);
    }
    fs::remove_file(&path).map_err(|error| failed(&path, "removed", &error))?;
    let manager = if args.kind == Kind::User { "systemctl --user" } else { "systemctl" };
    said(context, &path, "removed", &format!("{manager} disable --now {}; {manager} daemon-reload", name(&path)))
}

fn said(context: &Context, path: &Path, what: &str, next: &str) -> Result<Exit, Failure> {
    let value = json!({ "path": path.to_string_lossy(), "next": next });
    context.output.json_or(&value, || format!("{what}: {}\nnow run: {next}", path.display()))?;
    Ok(Exit::Ok)
}

fn wanted(context: &Context, args: &InstallArgs) -> Result<Wanted, Failure> {
    let (store, mountpoint) = places(context, &args.places)?;
    super::options::MountFlags::parse(&args.options)?;
    let common = &context.common;
    let path = |path: &Option<PathBuf>| path.as_deref().map(absolute).transpose();
    let wanted = Wanted {
        store: store.to_string(),
        mountpoint,
        options: args.options.join(","),
        key_file: path(&common.key_file)?,
        keyring: common.keyring,
        passphrase_file: path(&args.passphrase_file)?,
        passphrase_command: args.passphrase_command.clone(),
        user: args.user.clone(),
    };
    let usage = |message: &str, hint: &str| Err(Failure::new(Exit::Usage, message).hint(hint));
    let has_key = wanted.key_file.is_some()
        || wanted.keyring
        || wanted.passphrase_file.is_some()
        || wanted.passphrase_command.is_some();
    if !has_key {
        let hint = "name --key-file, --passphrase-file, --passphrase-command or --keyring";
        return usage("nobody can be asked for a passphrase at boot", hint);
    }
    if args.kind == Kind::Fstab && wanted.passphrase_command.is_some() {
        return usage("a line in fstab names no command", "name --key-file or --passphrase-file");
    }
    if args.kind == Kind::User && wanted.user.is_some() {
        return usage("a unit of this user's is this user's", "leave --user away, or install it for the `system`");
    }
    Ok(wanted)
}

/// The file that is written.
fn place(kind: Kind, mountpoint: &Path, root: &Path) -> Result<PathBuf, Failure> {
    let below = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    Ok(match kind {
        Kind::Fstab => below(Path::new("/etc/fstab")),
        Kind::System => below(Path::new("/etc/systemd/system")).join(unit_name(mountpoint)),
        Kind::User => below(&config_home()?.join("systemd/user")).join(unit_name(mountpoint)),
    })
}

fn name(path: &Path) -> String {
    format!("'{}'", path.file_name().unwrap_or_default().to_string_lossy())
}

/// What starts it now.
fn next(kind: Kind, mountpoint: &Path) -> String {
    let name = unit_name(mountpoint);
    match kind {
        Kind::Fstab => format!("systemctl daemon-reload; mount '{}'", mountpoint.display()),
        Kind::User => format!("systemctl --user daemon-reload && systemctl --user enable --now '{name}'"),
        Kind::System => format!("systemctl daemon-reload && systemctl enable --now '{name}'"),
    }
}

/// The line of fstab.
fn line(wanted: &Wanted) -> Result<String, Failure> {
    let text = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .ok_or_else(|| Failure::new(Exit::Usage, format!("{} is not UTF-8", path.display())))
    };
    let value = |value: &str| match value.contains([',', '\\', '"']) {
        false => Ok(fstab_field(value)),
        true => Err(Failure::new(Exit::Usage, format!("`{value}` cannot stand among the options of fstab"))
            .hint("choose a path without commas, backslashes and quotes")),
    };
    let mut options = FSTAB_OPTIONS.to_owned();
    let mut add = |option: &str| {
        options.push(',');
        options.push_str(option);
    };
    wanted.options.split(',').filter(|option| !option.is_empty()).for_each(&mut add);
    if let Some(user) = &wanted.user {
        add(&format!("as={}", value(user)?));
    }
    if let Some(file) = &wanted.key_file {
        add(&format!("key_file={}", value(&text(file)?)?));
    }
    if let Some(file) = &wanted.passphrase_file {
        add(&format!("passphrase_file={}", value(&text(file)?)?));
    }
    if wanted.keyring {
        add("keyring");
    }
    let mountpoint = fstab_field(&text(&wanted.mountpoint)?);
    Ok(format!("{} {mountpoint} kura {options} 0 0", fstab_field(&wanted.store)))
}

/// A fstab with our line for a mount point as given, or without it.
fn with_line(path: &Path, old: &str, mountpoint: &Path, line: Option<&str>) -> Result<String, Failure> {
    let place = fstab_field(&mountpoint.to_string_lossy());
    let (mut kept, mut written) = (Vec::new(), false);
    for (number, text) in old.lines().enumerate() {
        let is_here = !text.trim_start().starts_with('#') && text.split_ascii_whitespace().nth(1) == Some(&place);
        if !is_here {
            kept.push(text);
            continue;
        }
        if kept.last() != Some(&MARK) {
            let message =
                format!("{}: line {} mounts something at {}", path.display(), number + 1, mountpoint.display());
            return Err(Failure::new(Exit::Conflict, message).hint("it is not of `kura install`; change it by hand"));
        }
        match line {
            Some(line) if !written => kept.push(line),
            _ => drop(kept.pop()),
        }
        written = true;
    }
    if let (Some(line), false) = (line, written) {
        kept.extend([MARK, line]);
    }
    Ok(kept.into_iter().map(|line| format!("{line}\n")).collect())
}

/// Refuses a unit that somebody else wrote.
fn ours_or_none(path: &Path, old: Option<&str>) -> Result<(), Failure> {
    match old {
        Some(text) if !text.starts_with(MARK) => {
            let message = format!("{} is there and not of `kura install`", path.display());
            Err(Failure::new(Exit::Conflict, message).hint("remove or rename it first"))
        }
        _ => Ok(()),
    }
}

fn failed(path: &Path, what: &str, error: &std::io::Error) -> Failure {
    let failure = Failure::new(Exit::Other, format!("{} cannot be {what}: {error}", path.display()));
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            failure.hint("only root may; use sudo, or --dry-run to see what it would be")
        }
        _ => failure,
    }
}

fn read(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, "read", &error)),
    }
}

/// Replaces a file as a whole, keeping its permissions.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let put = || {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let mode = fs::metadata(&path).map_or(0o644, |meta| meta.mode() & 0o777);
        let dir = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(dir)?;
        let new = dir.join(format!(".kura-install-{}", std::process::id()));
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        written.and_then(|()| RealDisk.rename(&new, &path)).inspect_err(|_| drop(fs::remove_file(&new)))
    };
    put().map_err(|error| failed(path, "written", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_put_replaced_and_taken_away_and_foreign_lines_stay() {
        let (path, at) = (Path::new("/etc/fstab"), Path::new("/srv/my data"));
        let old = "# mine\nUUID=1 / ext4 defaults 0 1\n";
        let one = with_line(path, old, at, Some("a /srv/my\\040data kura x 0 0")).unwrap();
        assert_eq!(one, format!("{old}{MARK}\na /srv/my\\040data kura x 0 0\n"));
        let two = with_line(path, &one, at, Some("b /srv/my\\040data kura y 0 0")).unwrap();
        assert_eq!(two, format!("{old}{MARK}\nb /srv/my\\040data kura y 0 0\n"));
        assert_eq!(with_line(path, &two, at, None).unwrap(), old);
        assert_eq!(with_line(path, old, at, None).unwrap(), old);
        let foreign = format!("{old}a /srv/my\\040data kura x 0 0\n");
        assert_eq!(with_line(path, &foreign, at, None).unwrap_err().exit, Exit::Conflict);
        assert_eq!(with_line(path, &foreign, at, Some("b")).unwrap_err().exit, Exit::Conflict);
    }
}
