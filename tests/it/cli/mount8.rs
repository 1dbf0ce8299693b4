//! `mount -t kura` and fstab, by mount(8) itself, in a view of its own that ends with the test.

use std::path::Path;
use std::process::Command;

use super::support::{Home, run};

#[test]
fn mount_8_mounts_for_root_for_others_and_by_fstab() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let home = Home::new();
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh"]);
    command.arg(package.join("tests/it/cli/mount8.sh")).arg(home.dir("place"));
    // The ordinary user must reach the program.
    let kura = home.path("place/kura");
    std::fs::copy(env!("CARGO_BIN_EXE_kura"), &kura).unwrap();
    std::fs::set_permissions(home.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let ended = run(command.arg(kura).arg(package.join("mount-helper/mount.kura")).env_remove("KURA_STATE_DIR"));
    assert!(ended.code == Some(0) && ended.out.ends_with("all is well\n"), "{ended:?}");
}
