//! Documentation that is made from the program.

use std::path::Path;

/// `KURA_WRITE_DOCS=1` writes the file anew.
#[test]
fn the_reference_of_control_files_is_that_of_the_command_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/control.md");
    let reference = kura::control::reference();
    if std::env::var_os("KURA_WRITE_DOCS").is_some() {
        std::fs::write(&path, &reference).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(written == reference, "docs/control.md is not what the table says: KURA_WRITE_DOCS=1 writes it anew");
}
