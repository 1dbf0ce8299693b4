//! Where the passphrase comes from: the environment, a file, a command, or the terminal. Never the
//! command line.

use std::io::{IsTerminal, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use zeroize::{Zeroize, Zeroizing};

use super::Common;
use super::config::{
    NEW_PASSPHRASE_COMMAND_VAR, NEW_PASSPHRASE_FILE_VAR, PASSPHRASE_COMMAND_VAR, PASSPHRASE_FD_VAR,
    PASSPHRASE_FILE_VAR, PASSPHRASE_VAR,
};
use super::harden::{PASSPHRASE_LEN_MAX, handed_over};
use super::interrupt::during_prompt;
use crate::control::{Exit, Failure};
use crate::crypto::slots::{Credential, Secret};

/// Longest key file that is read, in bytes.
const KEY_FILE_LEN_MAX: u64 = 1024 * 1024;
/// A passphrase below this number of characters is warned of.
const PASSPHRASE_CHARS_ADVISED: usize = 12;

/// What opens the workspace, kept to be used more than once.
pub enum Key {
    /// A passphrase.
    Passphrase(Zeroizing<Vec<u8>>),
    /// The content of a key file.
    File(Zeroizing<Vec<u8>>),
    /// The recovery code.
    Recovery(Zeroizing<Vec<u8>>),
}

impl Key {
    /// A credential of it.
    pub fn credential(&self) -> Credential {
        match self {
            Key::Passphrase(bytes) => Credential::Passphrase(Secret::new(bytes.to_vec())),
            Key::File(bytes) => Credential::KeyFile(Secret::new(bytes.to_vec())),
            Key::Recovery(bytes) => Credential::RecoveryCode(Secret::new(bytes.to_vec())),
        }
    }

    /// One byte for the kind, then the secret: what goes to the daemon through its pipe.
    pub fn to_pipe(&self) -> Zeroizing<Vec<u8>> {
        let (kind, bytes) = match self {
            Key::Passphrase(bytes) => (b'p', bytes),
            Key::File(bytes) => (b'f', bytes),
            Key::Recovery(bytes) => (b'r', bytes),
        };
        let mut out = Zeroizing::new(Vec::with_capacity(bytes.len() + 1));
        out.push(kind);
        out.extend_from_slice(bytes);
        out
    }

    /// Reads what [`Key::to_pipe`] made.
    pub fn from_pipe(pipe: impl Read) -> Result<Self, Failure> {
        let bytes = read_bounded(pipe, KEY_FILE_LEN_MAX + 1, "the pipe from the command that started the daemon")?;
        let rest = || Zeroizing::new(bytes.get(1..).unwrap_or_default().to_vec());
        match bytes.first() {
            Some(b'p') => Ok(Key::Passphrase(rest())),
            Some(b'f') => Ok(Key::File(rest())),
            Some(b'r') => Ok(Key::Recovery(rest())),
            _ => {
                Err(Failure::new(Exit::Other, "no key came through the pipe from the command that started the daemon"))
            }
        }
    }
}

/// The key of an existing workspace.
pub fn obtain(common: &Common, workspace: &str) -> Result<Key, Failure> {
    if let Some(path) = &common.key_file {
        return read_key_file(path).map(Key::File);
    }
    if common.keyring {
        return super::keyring::load(workspace).map(Key::File);
    }
    let wrap = if common.recovery { Key::Recovery } else { Key::Passphrase };
    if let Some(passphrase) = from_environment()? {
        return Ok(wrap(passphrase));
    }
    let what = if common.recovery { "Recovery code" } else { "Passphrase" };
    ask(&format!("{what} of {workspace}: ")).map(wrap)
}

/// The key of a workspace to be made: a passphrase is asked for twice.
pub fn obtain_new(common: &Common) -> Result<Key, Failure> {
    if let Some(path) = &common.key_file {
        return read_key_file(path).map(Key::File);
    }
    if let Some(passphrase) = from_environment()? {
        check_new(&passphrase)?;
        return Ok(Key::Passphrase(passphrase));
    }
    ask_twice().map(Key::Passphrase)
}

/// A passphrase for a key slot of an existing workspace, asked for twice.
pub fn obtain_new_passphrase() -> Result<Key, Failure> {
    let passphrase = match from_file_or_command(NEW_PASSPHRASE_FILE_VAR, NEW_PASSPHRASE_COMMAND_VAR)? {
        Some(passphrase) => passphrase,
        None => return ask_twice().map(Key::Passphrase),
    };
    check_new(&passphrase)?;
    Ok(Key::Passphrase(passphrase))
}

fn ask_twice() -> Result<Zeroizing<Vec<u8>>, Failure> {
    let passphrase = ask("New passphrase: ")?;
    check_new(&passphrase)?;
    if *ask("The same again: ")? != *passphrase {
        return Err(Failure::new(Exit::Usage, "the two passphrases differ").hint("nothing was changed; try again"));
    }
    Ok(passphrase)
}

fn check_new(passphrase: &[u8]) -> Result<(), Failure> {
    if passphrase.is_empty() {
        return Err(Failure::new(Exit::Usage, "the passphrase is empty").hint("choose one of several words"));
    }
    let chars = String::from_utf8_lossy(passphrase);
    if chars.chars().count() < PASSPHRASE_CHARS_ADVISED {
        super::output::warn(&format!(
            "the passphrase is short; whoever gets hold of the store can try many. \
             {PASSPHRASE_CHARS_ADVISED} characters or more are advised, for example five random words"
        ));
    }
    Ok(())
}

fn from_environment() -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    if let Some(passphrase) = handed_over()? {
        return not_empty(passphrase, PASSPHRASE_VAR).map(Some);
    }
    from_file_or_command(PASSPHRASE_FILE_VAR, PASSPHRASE_COMMAND_VAR)
}

fn from_file_or_command(file_var: &str, command_var: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    if let Some(path) = std::env::var_os(file_var) {
        let path = Path::new(&path);
        let what = format!("{file_var} ({})", path.display());
        let file = std::fs::File::open(path)
            .map_err(|error| Failure::new(Exit::Usage, format!("{what} cannot be read: {error}")))?;
        return not_empty(first_line(read_bounded(file, PASSPHRASE_LEN_MAX as u64, &what)?), &what).map(Some);
    }
    if let Ok(command) = std::env::var(command_var) {
        return from_command(&command, command_var).map(Some);
    }
    Ok(None)
}

fn from_command(command: &str, var: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |reason: String| Failure::new(Exit::Usage, format!("{var}: {reason}"));
    let words = split_words(command).ok_or_else(|| failed("a quote is not closed".to_owned()))?;
    from_words(&words, var)
}

fn from_words(words: &[String], var: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |reason: String| Failure::new(Exit::Usage, format!("{var}: {reason}"));
    let (program, arguments) = words.split_first().ok_or_else(|| failed("it is empty".to_owned()))?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_remove(PASSPHRASE_VAR)
        .env_remove(PASSPHRASE_FD_VAR)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("`{program}` cannot be run: {error}")))?;
    let output = match child.stdout.take() {
        Some(stdout) => read_bounded(stdout, PASSPHRASE_LEN_MAX as u64, var),
        None => Err(failed("it has no output".to_owned())),
    };
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        return Err(failed(format!("`{program}` failed ({status})")));
    }
    not_empty(first_line(output?), var)
}

fn not_empty(secret: Zeroizing<Vec<u8>>, source: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if secret.is_empty() {
        return Err(Failure::new(Exit::Usage, format!("{source} gives an empty passphrase")));
    }
    Ok(secret)
}

/// Splits at spaces; quotes and backslashes work as in a shell, and nothing else does. `None` when a
/// quote is left open.
fn split_words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (_, '\\') => word.get_or_insert_default().push(chars.next()?),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// The content of a key file.
pub fn read_key_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let what = format!("the key file {}", path.display());
    let file = std::fs::File::open(path)
        .map_err(|error| Failure::new(Exit::Usage, format!("{what} cannot be read: {error}")))?;
    read_bounded(file, KEY_FILE_LEN_MAX, &what)
}

fn read_bounded(source: impl Read, len_max: u64, what: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut bytes = Zeroizing::new(Vec::new());
    source
        .take(len_max + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::new(Exit::Usage, format!("{what} cannot be read: {error}")))?;
    if bytes.len() as u64 > len_max {
        return Err(Failure::new(Exit::Usage, format!("{what} is longer than {len_max} bytes")));
    }
    Ok(bytes)
}

fn first_line(mut bytes: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let end = if end > 0 && bytes[end - 1] == b'\r' { end - 1 } else { end };
    bytes[end..].zeroize();
    bytes.truncate(end);
    bytes
}

fn ask(prompt: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if !std::io::stdin().is_terminal() && std::fs::File::open("/dev/tty").is_err() {
        return Err(Failure::new(Exit::Usage, "a passphrase is needed and there is no terminal to ask for it").hint(
            format!("set {PASSPHRASE_VAR}, {PASSPHRASE_FILE_VAR} or {PASSPHRASE_COMMAND_VAR}, or give --key-file"),
        ));
    }
    let text = during_prompt(|| rpassword::prompt_password(prompt)).map_err(|error| {
        Failure::new(Exit::Other, format!("the passphrase cannot be read from the terminal: {error}"))
    })?;
    Ok(Zeroizing::new(text.into_bytes()))
}

/// The environment variables that a password of a sealed document comes from.
pub struct PasswordVars {
    /// Holds it; taken out of the environment at the start.
    pub value: &'static str,
    /// Names a file whose first line it is.
    pub file: &'static str,
    /// Names a command that prints it.
    pub command: &'static str,
}

/// The password of a sealed document; a new one is asked for twice.
pub fn obtain_password(vars: &PasswordVars, what: &str, is_new: bool) -> Result<Secret, Failure> {
    let given = match super::harden::handed_over_once(vars.value)? {
        Some(password) => Some(password),
        None => from_file_or_command(vars.file, vars.command)?,
    };
    let is_given = given.is_some();
    let password = match given {
        Some(password) => password,
        None if !std::io::stdin().is_terminal() && std::fs::File::open("/dev/tty").is_err() => {
            return Err(Failure::new(Exit::Usage, format!("{what} is needed and there is no terminal to ask for it"))
                .hint(format!("set {}, {} or {}", vars.value, vars.file, vars.command)));
        }
        None => ask(&format!("{what}: "))?,
    };
    if is_new && !is_given && *ask("The same again: ")? != *password {
        return Err(Failure::new(Exit::Usage, "the two passwords differ").hint("nothing was changed; try again"));
    }
    Ok(Secret::new(password.to_vec()))
}

/// The password of a batch's source, if it names one, or its connection a command. No password stands in a job.
pub fn of_source(
    source: &crate::apps::batch::Source,
    command: Option<&[String]>,
) -> Result<Option<Zeroizing<String>>, Failure> {
    let bytes = if let Some(words) = command {
        from_words(words, "password_command")?
    } else if let Some(var) = &source.password_env {
        let password = std::env::var(var).map_err(|_| {
            Failure::new(Exit::Usage, format!("{var}, which the job names, does not hold the password"))
        })?;
        Zeroizing::new(password.into_bytes())
    } else if let Some(name) = &source.password_keyring {
        super::keyring::load_password(name)?
    } else if let Some(path) = &source.password_file {
        first_line(read_key_file(path)?)
    } else {
        return Ok(None);
    };
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Some(Zeroizing::new(text.to_owned()))),
        Err(_) => Err(Failure::new(Exit::Usage, "the password of the job's source is not UTF-8")),
    }
}
