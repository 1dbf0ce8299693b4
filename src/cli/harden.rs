//! The process keeps its secrets to itself.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::resource::{Resource, setrlimit};
use zeroize::Zeroizing;

use super::config::{PASSPHRASE_FD_VAR, PASSPHRASE_VAR, SEALED_NEW_PASSWORD_VAR, SEALED_PASSWORD_VAR};
use crate::control::{Exit, Failure};

/// Longest passphrase, in bytes; it must fit into a pipe that nobody reads yet.
pub const PASSPHRASE_LEN_MAX: usize = 16 * 1024;

/// No core dumps, and no reading of our memory by other processes of the user. Neither is worth
/// stopping for where the system does not allow it.
pub fn forbid_core_dumps() {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).ok();
    nix::sys::prctl::set_dumpable(false).ok();
}

/// Variables that hold secrets, and those that name the pipes which hold them instead.
const HANDED_OVER: [(&str, &str); 3] = [
    (PASSPHRASE_VAR, PASSPHRASE_FD_VAR),
    (SEALED_PASSWORD_VAR, "KURA_SEALED_PASSWORD_FD"),
    (SEALED_NEW_PASSWORD_VAR, "KURA_SEALED_NEW_PASSWORD_FD"),
];

/// Gets secrets out of the environment, where every child would inherit them and `/proc` shows
/// them: puts each into a pipe and starts this program anew without it. Returns when there is none.
pub fn take_passphrase_out_of_environment() -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Other, format!("the passphrase cannot be taken out of the environment: {error}"))
    };
    let mut pipes = Vec::new();
    for (var, fd_var) in HANDED_OVER {
        let Some(secret) = std::env::var_os(var) else { continue };
        let secret = Zeroizing::new(OsString::into_vec(secret));
        if secret.len() > PASSPHRASE_LEN_MAX {
            return Err(Failure::new(Exit::Usage, format!("{var} is longer than {PASSPHRASE_LEN_MAX} bytes")));
        }
        let (reader, mut writer) = std::io::pipe().map_err(failed)?;
        writer.write_all(&secret).map_err(failed)?;
        fcntl(&reader, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|error| failed(error.into()))?;
        pipes.push((var, fd_var, reader));
    }
    if pipes.is_empty() {
        return Ok(());
    }
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    if let Some(name) = std::env::args_os().next() {
        command.arg0(name);
    }
    command.args(std::env::args_os().skip(1));
    for (var, fd_var, reader) in &pipes {
        command.env_remove(var).env(fd_var, std::os::fd::AsRawFd::as_raw_fd(reader).to_string());
    }
    Err(failed(command.exec()))
}

/// The secret of a variable that [`take_passphrase_out_of_environment`] handed over. It can be had once.
pub fn handed_over_once(var: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    let Some((_, fd_var)) = HANDED_OVER.iter().find(|(known, _)| *known == var) else { return Ok(None) };
    let Some(fd) = std::env::var_os(fd_var) else { return Ok(None) };
    let read = read_pipe(fd.to_str());
    read.map(Some).map_err(|reason| Failure::new(Exit::Usage, format!("{fd_var} is set by kura itself only: {reason}")))
}

/// The passphrase that [`take_passphrase_out_of_environment`] handed over.
pub fn handed_over() -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    static HANDED_OVER: OnceLock<Result<Zeroizing<Vec<u8>>, String>> = OnceLock::new();
    let Some(fd) = std::env::var_os(PASSPHRASE_FD_VAR) else { return Ok(None) };
    match HANDED_OVER.get_or_init(|| read_pipe(fd.to_str())) {
        Ok(bytes) => Ok(Some(bytes.clone())),
        Err(reason) => {
            Err(Failure::new(Exit::Usage, format!("{PASSPHRASE_FD_VAR} is set by kura itself only: {reason}")))
        }
    }
}

fn read_pipe(fd: Option<&str>) -> Result<Zeroizing<Vec<u8>>, String> {
    let fd: u32 = fd.and_then(|fd| fd.parse().ok()).ok_or("it is no descriptor")?;
    let file = std::fs::File::open(format!("/proc/self/fd/{fd}")).map_err(|error| error.to_string())?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(PASSPHRASE_LEN_MAX + 1));
    file.take(PASSPHRASE_LEN_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}
