//! What an interrupt does: it ends a command at once, with the terminal as it was.

use std::fs::File;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use nix::sys::termios::{SetArg, tcgetattr, tcsetattr};
use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::control::{Exit, Failure};

static AT_ONCE: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From now on an interrupt ends the process with exit code 130. What was begun is in the journal, so
/// nothing is lost.
pub fn end_at_once() -> Result<(), Failure> {
    for signal in [SIGINT, SIGTERM] {
        let code = i32::from(Exit::Interrupted.code());
        signal_hook::flag::register_conditional_shutdown(signal, code, AT_ONCE.clone())
            .map_err(|error| Failure::new(Exit::Other, format!("signals cannot be handled: {error}")))?;
    }
    AT_ONCE.store(true, Ordering::SeqCst);
    Ok(())
}

/// From now on somebody else handles interrupts.
pub fn hand_over() {
    AT_ONCE.store(false, Ordering::SeqCst);
}

/// While it lives, an interrupt first gives the terminal its settings back, as a prompt turns the echo off.
pub struct EchoGuard {
    signals: Vec<SigId>,
}

impl EchoGuard {
    /// Without a terminal it does nothing.
    pub fn new() -> Self {
        Self { signals: Self::watch().unwrap_or_default() }
    }

    fn watch() -> Option<Vec<SigId>> {
        let tty = File::open("/dev/tty").ok()?;
        let before = tcgetattr(&tty).ok()?;
        let (mut receiver, sender) = UnixStream::pair().ok()?;
        let register = |signal| signal_hook::low_level::pipe::register(signal, sender.try_clone().ok()?).ok();
        let signals = [SIGINT, SIGTERM].into_iter().filter_map(register).collect();
        hand_over();
        std::thread::spawn(move || {
            // Nothing comes when the guard is dropped, which closes the other ends.
            if matches!(receiver.read(&mut [0]), Ok(1)) {
                tcsetattr(&tty, SetArg::TCSANOW, &before).ok();
                std::process::exit(i32::from(Exit::Interrupted.code()));
            }
        });
        Some(signals)
    }
}

impl Drop for EchoGuard {
    fn drop(&mut self) {
        if self.signals.is_empty() {
            return;
        }
        AT_ONCE.store(true, Ordering::SeqCst);
        for signal in self.signals.drain(..) {
            signal_hook::low_level::unregister(signal);
        }
    }
}
