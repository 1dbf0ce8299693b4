//! Random bytes from the operating system.
//!
//! Nonces are needed by the thousand, so each thread draws from the kernel in blocks. Bytes are
//! wiped from the block as they are handed out. A fork would hand the same bytes out twice; this
//! process never forks without exec (that takes `unsafe`, which is forbidden here).

use std::cell::RefCell;

const BLOCK_LEN: usize = 1024;

struct Block {
    bytes: [u8; BLOCK_LEN],
    used: usize,
}

thread_local! {
    static BLOCK: RefCell<Block> = const { RefCell::new(Block { bytes: [0; BLOCK_LEN], used: BLOCK_LEN }) };
}

/// Fills `out` with random bytes.
///
/// Aborts the process when the operating system has no randomness to give: nothing that follows
/// could be kept secret.
pub fn fill(out: &mut [u8]) {
    if out.len() > BLOCK_LEN / 4 {
        return from_system(out);
    }
    BLOCK.with_borrow_mut(|block| {
        if block.used + out.len() > BLOCK_LEN {
            from_system(&mut block.bytes);
            block.used = 0;
        }
        let source = &mut block.bytes[block.used..block.used + out.len()];
        out.copy_from_slice(source);
        source.fill(0);
        block.used += out.len();
    });
}

/// An array of random bytes.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    fill(&mut out);
    out
}

/// A random number.
pub fn number() -> u64 {
    u64::from_le_bytes(bytes())
}

/// A random UUID (version 4).
pub fn uuid() -> uuid::Uuid {
    uuid::Builder::from_random_bytes(bytes()).into_uuid()
}

fn from_system(out: &mut [u8]) {
    if let Err(error) = getrandom::fill(out) {
        tracing::error!("the operating system gives no random bytes: {error}");
        std::process::abort();
    }
}
