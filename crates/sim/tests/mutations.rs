//! Each fault that is seeded on purpose is found, by the seed that `docs/simulation.md` names.

use wharfie_sim::{Mutation, Setup, run, size};

/// The first seeds that show the mutations: `wharfie-sim --mutations` finds them anew.
const SEEDS: [(&str, u64); 11] = [
    ("older-wins", 0),
    ("not-sticky", 0),
    ("no-grace", 12),
    ("acks-before-sync", 2),
    ("keeps-duplicates", 0),
    ("tied-moves", 0),
    ("ignores-health", 25),
    ("forgets-elsewhere", 0),
    ("no-reconciliation", 1),
    ("ignores-isolation", 9),
    ("trusts-the-report", 48),
];

#[test]
fn every_mutation_is_found() {
    assert_eq!(SEEDS.len(), Mutation::ALL.len());
    for (name, seed) in SEEDS {
        let mutation = Mutation::named(name);
        assert!(mutation.is_some(), "there is no mutation {name}");
        let mutated = Setup {
            mutation,
            ..Setup::new(seed, size(seed))
        };
        let outcome = run(&mutated);
        assert!(
            outcome.violation.is_some(),
            "{name} is not found: {outcome}"
        );
    }
}
