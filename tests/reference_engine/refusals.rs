//! How many random networks an engine refuses: a test that skips them must not pass by running
//! none.

use std::cell::{Cell, RefCell};
use std::fmt::Display;

/// Counts what an engine accepts and refuses.
#[derive(Debug, Default)]
pub struct Refusals {
    tried: Cell<usize>,
    refused: RefCell<Vec<String>>,
}

impl Refusals {
    /// What was built; `None`, counted with its reason, if it was refused.
    pub fn accepted<T, E: Display>(&self, built: Result<T, E>) -> Option<T> {
        self.tried.set(self.tried.get() + 1);
        built.map_err(|why| self.refused.borrow_mut().push(why.to_string())).ok()
    }

    /// Asserts that anything was tried, and that at most this fraction of it was refused.
    ///
    /// # Panics
    /// When more was refused, with the number and the first reason.
    pub fn assert_at_most(&self, fraction: f64) {
        let (tried, refused) = (self.tried.get(), self.refused.borrow());
        let first = refused.first().map_or("", String::as_str);
        assert!(tried > 0, "no network was tried");
        assert!(refused.len() as f64 <= fraction * tried as f64, "{} of {tried} refused: {first}", refused.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(refused: usize) -> Refusals {
        let refusals = Refusals::default();
        for i in 0..20 {
            refusals.accepted(if i < refused { Err("too wide") } else { Ok(i) });
        }
        refusals
    }

    #[test]
    fn few_refusals_are_accepted() {
        of(1).assert_at_most(0.05);
    }

    #[test]
    #[should_panic(expected = "2 of 20 refused: too wide")]
    fn many_refusals_fail() {
        of(2).assert_at_most(0.05);
    }
}
