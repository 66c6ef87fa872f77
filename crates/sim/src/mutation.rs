//! Faults that are seeded on purpose, in the simulator's own drivers: it must find each of them.

/// A fault of the agent that the simulator has to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// Of two versions of an object a node keeps the earlier one.
    OlderWins,
    /// The coordinator places as if nothing had been assigned or ran.
    NotSticky,
    /// Whoever is away for a moment is gone: no node, agent or Engine is waited for.
    NoGrace,
    /// It is said that a change is durable, and done, before it is on the disk.
    AcksBeforeSync,
    /// Nodes go on with what is another node's by now.
    KeepsDuplicates,
    /// What has its data on a node that is away starts elsewhere without it.
    TiedMoves,
    /// The coordinator takes all tasks of a rollout for well.
    IgnoresHealth,
    /// A node does not look at what others run when it takes over tasks.
    ForgetsElsewhere,
    /// Nodes do not compare what they have: what was not heard is not repaired.
    NoReconciliation,
    /// On the smaller side of a partition everything goes on.
    IgnoresIsolation,
    /// A stack is taken down only where the node's own report, which is some milliseconds old, has
    /// containers of it.
    TrustsTheReport,
}

impl Mutation {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 11] = [
        ("older-wins", Self::OlderWins),
        ("not-sticky", Self::NotSticky),
        ("no-grace", Self::NoGrace),
        ("acks-before-sync", Self::AcksBeforeSync),
        ("keeps-duplicates", Self::KeepsDuplicates),
        ("tied-moves", Self::TiedMoves),
        ("ignores-health", Self::IgnoresHealth),
        ("forgets-elsewhere", Self::ForgetsElsewhere),
        ("no-reconciliation", Self::NoReconciliation),
        ("ignores-isolation", Self::IgnoresIsolation),
        ("trusts-the-report", Self::TrustsTheReport),
    ];

    /// The one with a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(n, _)| *n == name);
        found.map(|(_, mutation)| *mutation)
    }
}
