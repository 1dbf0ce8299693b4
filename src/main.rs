//! The program `kura`.

use std::process::ExitCode;

fn main() -> ExitCode {
    kura::cli::main()
}
