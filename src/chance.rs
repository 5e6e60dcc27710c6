//! Where jitter comes from, so that a test can repeat what it has seen.

/// Draws numbers.
pub trait Chance: Send + Sync {
    /// A number from 0 up to, but not including, 1: evenly distributed.
    fn fraction(&self) -> f64;
}

/// Not to be foretold, and different in each process.
#[derive(Debug, Clone, Copy)]
pub struct Random;

impl Chance for Random {
    fn fraction(&self) -> f64 {
        fastrand::f64()
    }
}
