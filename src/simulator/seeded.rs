//! Everything the simulator invents, as a hash of (seed, label, number): the same on every machine and in every
//! version, whatever the order in which it is asked for. A generator with state could promise neither.

use sha2::{Digest, Sha256};
use uuid::Uuid;

fn digest(seed: u64, label: &str, number: u64) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(seed.to_be_bytes());
    hash.update(number.to_be_bytes());
    hash.update(label.as_bytes());
    hash.finalize().into()
}

pub(super) fn guid(seed: u64, label: &str, number: u64) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest(seed, label, number)[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// Evenly spread over 0 (included) to 1 (excluded).
pub(super) fn fraction(seed: u64, label: &str, number: u64) -> f64 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&digest(seed, label, number)[..4]);
    f64::from(u32::from_be_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_invented_depends_on_seed_label_and_number_and_on_nothing_else() {
        assert_eq!(guid(7, "device", 1), guid(7, "device", 1));
        assert_ne!(guid(7, "device", 1), guid(8, "device", 1));
        assert_ne!(guid(7, "device", 1), guid(7, "device", 2));
        assert_ne!(guid(7, "device", 1), guid(7, "cloud pc", 1));
        // Pinned: a change here would silently change every fleet and every random run that anybody has written down.
        assert_eq!(guid(1, "managed device", 0).to_string(), "4fc053f3-266d-4b73-afb8-56225f7de3e5");
        assert_eq!(guid(1, "managed device", 0).get_version_num(), 4);
    }

    #[test]
    fn fractions_spread_evenly_below_one() {
        let drawn: Vec<f64> = (0..1000).map(|n| fraction(3, "spread", n)).collect();
        assert!(drawn.iter().all(|f| (0.0..1.0).contains(f)));
        let low = drawn.iter().filter(|f| **f < 0.2).count();
        assert!((150..250).contains(&low), "{low} of 1000 below 0.2");
    }
}
