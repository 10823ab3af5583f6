//! What the tests of several commands share.

use std::path::Path;
use std::process::Command;

/// Runs `distill` in `folder`; what it prints.
pub fn distill(folder: &Path, line: &str) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
    let output = command.current_dir(folder).args(line.split(' ')).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        Ok(said)
    } else {
        Err(said)
    }
}
