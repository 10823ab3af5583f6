//! The table for people.

use super::{shown, DECLARATIONS};

/// The table of the README: one row a parameter.
pub fn markdown() -> String {
    let mut table = String::from("| parameter | default | permitted | set | what it does |\n|---|---|---|---|---|\n");
    for d in DECLARATIONS {
        let set = match (d.live, d.per_camera) {
            (true, _) => "live",
            (false, true) => "per camera",
            (false, false) => "",
        };
        let default = shown(&d.default());
        table += &format!("| `{}` | `{default}` | {} | {set} | {} |\n", d.name, d.range(), d.description);
    }
    table
}

/// The list for a terminal.
pub fn listing() -> String {
    let mut list = String::new();
    for d in DECLARATIONS {
        let set = match (d.live, d.per_camera) {
            (true, _) => ", live",
            (false, true) => ", per camera",
            (false, false) => "",
        };
        list +=
            &format!("  {} ({}; default {}{set})\n      {}\n", d.name, d.range(), shown(&d.default()), d.description);
    }
    list
}
