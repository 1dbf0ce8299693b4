//! Who decides what a caller may do with a file.

use fuser::AccessFlags;

use crate::fs::Shown;
use crate::worktree::FileKind;

/// `CAP_DAC_OVERRIDE`: the mode of a file keeps its bearer from nothing.
const DAC_OVERRIDE: u32 = 1;
const EVERY_USER: [&str; 3] = ["0", "0", "4294967295"];

/// Whether the mode of a file keeps nobody from anything who may enter a mount of this process's own: the kernel lets
/// in who is of the same user and group, and that is root here, with all rights and of the whole machine. The kernel
/// need not know modes for that, and would else ask for those of a directory after each change in it.
pub(super) fn is_root_alone(allow_other: bool) -> bool {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    !allow_other && is_almighty(&read("/proc/self/status"), &read("/proc/self/uid_map"))
}

/// The same by what the kernel says of this process, and of the users of its namespace.
fn is_almighty(status: &str, uid_map: &str) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    let is_root = |ids: &str| ids.split_whitespace().count() == 4 && ids.split_whitespace().all(|id| id == "0");
    let capabilities = u64::from_str_radix(field("CapEff:").trim(), 16).unwrap_or(0);
    is_root(field("Uid:"))
        && is_root(field("Gid:"))
        && capabilities & (1 << DAC_OVERRIDE) != 0
        && uid_map.split_whitespace().eq(EVERY_USER)
}

/// What `access(2)` tells root: no file can be run that nobody may run; all else is allowed.
pub(super) fn is_allowed(shown: &Shown, mask: AccessFlags) -> bool {
    let attr = &shown.attr;
    !mask.contains(AccessFlags::X_OK) || attr.kind == FileKind::Directory || attr.mode & 0o111 != 0
}

#[cfg(test)]
mod tests {
    use super::is_almighty;

    const MAP: &str = "         0          0 4294967295\n";

    fn status(uid: &str, gid: &str, capabilities: &str) -> String {
        format!("Name:\tkura\nUid:\t{uid}\nGid:\t{gid}\nCapInh:\t0000000000000000\nCapEff:\t{capabilities}\n")
    }

    #[test]
    fn only_root_of_the_whole_machine_with_all_rights_needs_no_modes() {
        let (root, all) = ("0\t0\t0\t0", "000001ffffffffff");
        assert!(is_almighty(&status(root, root, all), MAP));
        for (uid, gid, capabilities, map) in [
            ("1000\t1000\t1000\t1000", root, all, MAP),
            ("0\t1000\t0\t0", root, all, MAP),
            (root, "0\t100\t0\t0", all, MAP),
            (root, root, "000001fffffffffd", MAP),
            (root, root, "", MAP),
            (root, root, all, "0 1000 1\n"),
            (root, root, all, "0 0 65536\n65536 65536 1\n"),
            (root, root, all, ""),
        ] {
            assert!(!is_almighty(&status(uid, gid, capabilities), map), "{uid} {gid} {capabilities} {map}");
        }
        assert!(!is_almighty("", MAP));
    }
}
