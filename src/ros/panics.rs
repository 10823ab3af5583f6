//! Panics that cost one frame and not the node: caught where a frame begins, and reported off the
//! frame path.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};

use super::incoming::ShortText;
use super::record::PANIC;

thread_local! {
    /// Whether a panic of this thread is being waited for.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
    /// Message and place of the last one.
    static LAST: Cell<Option<ShortText<PANIC>>> = const { Cell::new(None) };
}

/// Runs `f`; its panic's message, with the place in the program if [`install_hook`] was called.
///
/// What `f` was changing may be half done.
pub fn caught<T>(f: impl FnOnce() -> T) -> Result<T, ShortText<PANIC>> {
    EXPECTED.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    EXPECTED.set(false);
    result.map_err(|payload| LAST.take().unwrap_or_else(|| ShortText::new(text(&*payload).as_bytes())))
}

/// Has panics that are [`caught`] keep their message instead of printing it: printing may wait, and
/// the diagnostics log it. To be called once, at the start of the program.
pub fn install_hook() {
    let others = panic::take_hook();
    panic::set_hook(Box::new(move |info| if EXPECTED.get() { keep(info) } else { others(info) }));
}

fn keep(info: &PanicHookInfo) {
    let text = text(info.payload());
    LAST.set(Some(match info.location() {
        Some(place) => ShortText::of(&format_args!("{}:{}: {text}", place.file(), place.line())),
        None => ShortText::new(text.as_bytes()),
    }));
}

fn text(payload: &(dyn Any + Send)) -> &str {
    let fixed = payload.downcast_ref::<&str>().copied();
    fixed.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason was given")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(caught(|| 7), Ok(7));
        let why = caught(|| panic!("row {} is missing", 3)).map(drop).unwrap_err().to_string();
        assert!(why.ends_with("row 3 is missing"), "{why}");
        let why = caught(|| std::panic::panic_any(5)).map(drop).unwrap_err().to_string();
        assert!(why.ends_with("no reason was given"), "{why}");
    }

    #[test]
    fn with_the_hook_the_message_has_the_place_and_nothing_is_printed() {
        install_hook();
        let why = caught(|| panic!("here")).map(drop).unwrap_err().to_string();
        assert!(why.contains("panics.rs:") && why.ends_with(": here"), "{why}");
    }
}
