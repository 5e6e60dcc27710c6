//! What the benchmarks share: databases of their own, the daemon as a process, the yardsticks, and the table at the end.

pub mod client;
pub mod daemon;
pub mod database;
pub mod history;
pub mod peers;
pub mod prompt;
pub mod report;

/// The middle one, or the lower of the two in the middle.
pub fn median(samples: &[f64]) -> f64 {
    percentile(samples, 50)
}

/// The smallest sample that so many in a hundred do not exceed.
pub fn percentile(samples: &[f64], hundredth: usize) -> f64 {
    assert!(!samples.is_empty(), "nothing was measured");
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * hundredth).div_ceil(100).saturating_sub(1)]
}
