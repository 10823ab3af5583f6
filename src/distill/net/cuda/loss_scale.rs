//! The factor on the gradients of a training in half precision, so that small ones are not lost
//! (Micikevicius et al. 2018, "Mixed precision training", section 3.2): as large as it can be without
//! an overflow.

use super::kernels::Precision;

/// At the start; soon as large as it can be.
const FIRST: f32 = 1024.0;

/// Bounds of the factor.
const LEAST: f32 = 1.0 / 1024.0;
const MOST: f32 = 65536.0;

/// Updates without an overflow after which it is doubled.
const PATIENCE: u32 = 500;

/// The factor, and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct LossScale {
    scale: f32,
    moves: bool,
    /// Updates since the last overflow, or since it was doubled.
    good: u32,
    /// Updates that were left out.
    overflows: u64,
}

impl LossScale {
    /// In single precision it stays 1.
    pub fn new(precision: Precision) -> Self {
        let moves = precision == Precision::Half;
        Self { scale: if moves { FIRST } else { 1.0 }, moves, good: 0, overflows: 0 }
    }

    /// By which the gradients are too large.
    pub fn get(&self) -> f32 {
        self.scale
    }

    /// Updates that were left out so far.
    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    /// Takes note of an update, whose gradients were `sound` or not. `false` where they were not, and
    /// a smaller factor cannot help.
    pub fn follow(&mut self, sound: bool) -> bool {
        if sound {
            self.good += 1;
            if self.moves && self.good == PATIENCE {
                (self.scale, self.good) = ((2.0 * self.scale).min(MOST), 0);
            }
            return true;
        }
        if !self.moves || self.scale <= LEAST {
            return false;
        }
        (self.scale, self.good) = (self.scale / 2.0, 0);
        self.overflows += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_halves_at_an_overflow_and_doubles_after_many_updates_without() {
        let mut scale = LossScale::new(Precision::Half);
        assert!(scale.follow(false));
        assert_eq!((scale.get(), scale.overflows()), (FIRST / 2.0, 1));
        assert!((0..PATIENCE).all(|_| scale.follow(true)));
        assert_eq!(scale.get(), FIRST);
        // An overflow that no factor ends.
        let halved = (0..100).take_while(|_| scale.follow(false)).count();
        assert_eq!((halved, scale.get()), (20, LEAST));
        // Single precision has none.
        let mut single = LossScale::new(Precision::Single);
        assert!((0..2 * PATIENCE).all(|_| single.follow(true)));
        assert!(!single.follow(false));
        assert_eq!(single.get(), 1.0);
    }
}
