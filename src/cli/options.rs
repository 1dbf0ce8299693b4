//! What follows `-o`.

use crate::control::{Exit, Failure};
use crate::workspace::Fsync;

/// Options of a mount, as `mount(8)` writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountFlags {
    /// Refuse every change.
    pub read_only: bool,
    /// Other users may enter, as permissions allow.
    pub allow_other: bool,
    /// Permissions count also where only root may enter.
    pub default_permissions: bool,
    /// No extended attributes.
    pub noxattr: bool,
    /// Set-user-id bits count.
    pub suid: bool,
    /// Device nodes work.
    pub dev: bool,
    /// Programs cannot be run.
    pub noexec: bool,
    /// Mount over a directory that is not empty.
    pub nonempty: bool,
    /// When an fsync is done.
    pub fsync: Fsync,
    /// The log of requests names paths.
    pub log_paths: bool,
}

const KNOWN: &str = "ro, rw, allow_other, default_permissions, noxattr, suid, nosuid, dev, nodev, exec, noexec, \
                     noatime, nonempty, fsync=local, fsync=store, access_log=paths, access_log=redacted, _netdev";

impl MountFlags {
    /// Reads the lists behind every `-o`; later ones win.
    pub fn parse(lists: &[String]) -> Result<Self, Failure> {
        let mut flags = Self::default();
        for option in lists.iter().flat_map(|list| list.split(',')).filter(|option| !option.is_empty()) {
            match option {
                "ro" => flags.read_only = true,
                "rw" => flags.read_only = false,
                "allow_other" => flags.allow_other = true,
                "default_permissions" => flags.default_permissions = true,
                "noxattr" => flags.noxattr = true,
                "suid" => flags.suid = true,
                "nosuid" => flags.suid = false,
                "dev" => flags.dev = true,
                "nodev" => flags.dev = false,
                "exec" => flags.noexec = false,
                "noexec" => flags.noexec = true,
                "nonempty" => flags.nonempty = true,
                "fsync=local" => flags.fsync = Fsync::Local,
                "fsync=store" => flags.fsync = Fsync::Store,
                "access_log=paths" => flags.log_paths = true,
                "access_log=redacted" => flags.log_paths = false,
                // Access times change only when they are set; the network is for the boot order.
                "noatime" | "_netdev" => {}
                unknown => {
                    return Err(Failure::new(Exit::Usage, format!("`-o {unknown}` is not known"))
                        .hint(format!("the options are {KNOWN}")));
                }
            }
        }
        Ok(flags)
    }
}
