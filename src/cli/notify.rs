//! Messages on the user's desktop, where there is one.

use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::workspace::Notice;

/// Shows messages; comes with libnotify, which desktops have.
const PROGRAM: &str = "notify-send";

/// Shows messages in the desktop session that this process belongs to; `None` without one.
pub(super) fn desktop() -> Option<Notice> {
    let is_set = |var: &str| std::env::var_os(var).is_some_and(|value| !value.is_empty());
    let has_display = ["WAYLAND_DISPLAY", "DISPLAY"].iter().any(|var| is_set(var));
    (has_display && is_set("DBUS_SESSION_BUS_ADDRESS")).then(|| Arc::new(show) as Notice)
}

fn show(message: &str) {
    let mut command = Command::new(PROGRAM);
    command.args(["--app-name=kura", "--", "kura", message]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let shown = command.spawn().and_then(|mut child| {
        let wait = move || drop(child.wait());
        std::thread::Builder::new().name("kura-notify".into()).spawn(wait)
    });
    if let Err(error) = shown {
        tracing::debug!("the desktop is not told: {error}");
    }
}
