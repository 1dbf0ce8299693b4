//! What an interrupt does: it ends a command at once, unless somebody else has to clean up first.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

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

/// From now on an interrupt ends the process again.
pub fn end_at_once_again() {
    AT_ONCE.store(true, Ordering::SeqCst);
}

/// Runs a prompt, which turns the terminal's echo off. An interrupt ends the prompt, which turns it on
/// again, and then the process.
pub fn during_prompt<T>(prompt: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    hand_over();
    let answer = prompt();
    AT_ONCE.store(true, Ordering::SeqCst);
    if answer.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {
        signal_hook::low_level::raise(SIGINT)?;
    }
    answer
}
