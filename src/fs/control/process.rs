//! Which process a thread is of, and what it has open.

use crate::version::entry::Ino;

/// The process of a thread, as the process of the mount numbers them; `None` where that is not known.
pub(super) fn process_of(thread: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
}

/// The process of a thread that closes a descriptor of a file, when it is the last one that the process has of that
/// file. What is being closed is in its table no more.
pub(super) fn last_closer(thread: u32, ino: Ino) -> Option<u32> {
    process_of(thread).filter(|process| !holds(*process, ino))
}

/// Whether a process has a descriptor of a file with this number. That of another file system may have it, too; then a
/// line is ended by its last close.
fn holds(process: u32, ino: Ino) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{process}/fdinfo")) else { return false };
    let number = ino.0.to_string();
    let is_same = |text: String| text.lines().any(|line| line.strip_prefix("ino:").map(str::trim) == Some(&*number));
    descriptors.flatten().any(|descriptor| std::fs::read_to_string(descriptor.path()).is_ok_and(is_same))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_held_while_a_descriptor_is_open() {
        use std::os::unix::fs::MetadataExt;
        let file = tempfile::tempfile().unwrap();
        let (own, ino) = (std::process::id(), Ino(file.metadata().unwrap().ino()));
        let twin = file.try_clone().unwrap();
        drop(file);
        assert!(holds(own, ino) && last_closer(own, ino).is_none());
        drop(twin);
        assert_eq!(last_closer(own, ino), Some(own));
    }

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
