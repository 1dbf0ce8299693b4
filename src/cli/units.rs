//! The words of fstab and of systemd.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::install::{MARK, Wanted};
use crate::control::{Exit, Failure};

/// A field of fstab: what would end it is written in octal.
pub(super) fn fstab_field(text: &str) -> String {
    let mut field = String::new();
    for c in text.chars() {
        match c {
            ' ' | '\t' | '\n' | '\\' | '#' => write!(field, "\\{:03o}", u32::from(c)).ok(),
            c => write!(field, "{c}").ok(),
        };
    }
    field
}

/// The name of the unit for a mount point, escaped as `systemd-escape --path` does.
pub(super) fn unit_name(mountpoint: &Path) -> String {
    let bytes = mountpoint.as_os_str().as_bytes();
    let mut name = "kura-".to_owned();
    for (at, byte) in bytes.iter().skip(1).enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if at > 0 => name.push('.'),
            byte if byte.is_ascii_alphanumeric() || *byte == b'_' => name.push(char::from(*byte)),
            // Writing to a string does not fail.
            byte => drop(write!(name, "\\x{byte:02x}")),
        }
    }
    name + ".service"
}

/// One word of a line of a unit.
fn word(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%"))
}

fn command(words: &[&str]) -> String {
    words.iter().map(|text| word(text).replace('$', "$$")).collect::<Vec<String>>().join(" ")
}

/// The unit of a service that mounts.
pub(super) fn unit(wanted: &Wanted, system: bool) -> Result<String, Failure> {
    let usage = |what: &str| Failure::new(Exit::Usage, format!("{what} is not UTF-8 or holds control characters"));
    let text = |path: &Path| path.to_str().map(str::to_owned).ok_or_else(|| usage("a path"));
    let program =
        std::env::current_exe().map_err(|error| Failure::new(Exit::Other, format!("this program: {error}")))?;
    let (program, mountpoint) = (text(&program)?, text(&wanted.mountpoint)?);
    let key_file = wanted.key_file.as_deref().map(text).transpose()?;
    let mut mount = vec![program.as_str(), "mount", "--foreground"];
    if !wanted.options.is_empty() {
        mount.extend(["-o", &wanted.options]);
    }
    if let Some(file) = &key_file {
        mount.extend(["--key-file", file]);
    }
    if wanted.keyring {
        mount.push("--keyring");
    }
    mount.extend(["--", &wanted.store, &mountpoint]);
    let mut variables = Vec::new();
    if let Some(file) = &wanted.passphrase_file {
        variables.push(("KURA_PASSPHRASE_FILE", text(file)?));
    }
    variables.extend(wanted.passphrase_command.clone().map(|command| ("KURA_PASSPHRASE_COMMAND", command)));
    for name in ["KURA_STATE_DIR", "KURA_CACHE_DIR", "KURA_CONFIG"] {
        variables.extend(std::env::var(name).ok().map(|value| (name, value)));
    }
    let environment: String =
        variables.iter().map(|(name, value)| format!("Environment={}\n", word(&format!("{name}={value}")))).collect();
    let user = wanted.user.as_ref().map(|user| format!("User={user}\n")).unwrap_or_default();
    let (after, target) = match system {
        true => ("After=network-online.target\nWants=network-online.target\n", "multi-user.target"),
        false => ("", "default.target"),
    };
    let state = match system && wanted.user.is_none() {
        true => {
            "StateDirectory=kura\nCacheDirectory=kura\n\
             Environment=HOME=/root KURA_STATE_DIR=/var/lib/kura KURA_CACHE_DIR=/var/cache/kura\n"
        }
        false => "",
    };
    let description = mountpoint.replace('%', "%%");
    let (mkdir, mount) = (command(&["mkdir", "-p", "--", &mountpoint]), command(&mount));
    let stop = command(&[&program, "unmount", "--", &mountpoint]);
    let values = variables.iter().map(|(_, value)| value.as_str());
    let given = [&wanted.store, &mountpoint, &program, &wanted.options].into_iter().map(String::as_str);
    let mut given = given.chain(wanted.user.as_deref()).chain(key_file.as_deref()).chain(values);
    if given.any(|text| text.chars().any(char::is_control)) {
        return Err(usage("a path, an option or a name"));
    }
    Ok(format!(
        "{MARK}\n[Unit]\nDescription=kura workspace at {description}\nDocumentation=man:kura(1)\n{after}\n[Service]\n\
         Type=notify\nNotifyAccess=main\n{user}{state}{environment}ExecStartPre={mkdir}\nExecStart={mount}\n\
         ExecStop={stop}\nTimeoutStartSec=120\nTimeoutStopSec=90\nRestart=on-failure\nRestartSec=5\n\n\
         [Install]\nWantedBy={target}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            store: "s3://b/p?region=r".into(),
            mountpoint: "/home/a/my \"100%\" $work".into(),
            options: "allow_other".into(),
            key_file: Some("/k".into()),
            keyring: false,
            passphrase_file: None,
            passphrase_command: None,
            user: None,
        }
    }

    #[test]
    fn names_are_those_of_systemd_escape() {
        assert_eq!(unit_name(Path::new("/srv/my-data/.x y")), "kura-srv-my\\x2ddata-.x\\x20y.service");
        assert_eq!(unit_name(Path::new("/.a")), "kura-\\x2ea.service");
        assert_eq!(fstab_field("a b\\c"), "a\\040b\\134c");
    }

    #[test]
    fn words_of_a_unit_cannot_become_lines_or_specifiers() {
        let made = unit(&wanted(), false).unwrap();
        assert!(made.contains("\"--\" \"s3://b/p?region=r\" \"/home/a/my \\\"100%%\\\" $$work\"\n"), "{made}");
        assert!(made.contains("\"-o\" \"allow_other\" \"--key-file\" \"/k\""), "{made}");
        for evil in ["/a\nExecStartPre=evil", "/a\n"] {
            assert!(unit(&Wanted { mountpoint: evil.into(), ..wanted() }, true).is_err(), "{evil}");
        }
        assert!(unit(&Wanted { user: Some("a\nb".into()), ..wanted() }, true).is_err());
    }
}
