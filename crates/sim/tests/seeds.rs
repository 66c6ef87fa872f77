//! A few runs; `make sim` makes many.

use wharfie_sim::{Setup, run};

#[test]
fn all_is_well() {
    for (seed, nodes) in [(0, 3), (1, 3), (2, 4), (3, 5), (5, 6)] {
        let outcome = run(&Setup::new(seed, nodes));
        assert!(outcome.violation.is_none(), "{outcome}");
    }
}

#[test]
fn a_seed_makes_the_same_run_again() {
    let setup = Setup::new(7, 5);
    assert_eq!(run(&setup).stats, run(&setup).stats);
    let other = Setup::new(9, 5);
    assert_ne!(run(&setup).stats.digest, run(&other).stats.digest);
}
