//! The program `kura`.

use std::process::ExitCode;

/// Content passes through buffers of a hundred kilobytes and more, which the system's allocator gives back to
/// the kernel at once; fetching them anew costs more than opening what they hold.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    kura::cli::main()
}
