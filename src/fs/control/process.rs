//! Which process a thread is of.

/// The process of a thread, as the process of the mount numbers them; `None` where that is not known.
pub(super) fn process_of(thread: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_of_a_process_is_known_to_be_of_it() {
        let own = std::process::id();
        assert_eq!(process_of(own), Some(own));
        let other = std::thread::spawn(|| {
            let thread = u32::try_from(nix::unistd::gettid().as_raw()).unwrap();
            (thread, process_of(thread))
        });
        let (other, process) = other.join().unwrap();
        assert_ne!(other, own);
        assert_eq!(process, Some(own));
        assert_eq!(process_of(0), None);
    }
}
