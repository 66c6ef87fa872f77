//! What the server did, in numbers that only grow.

use crate::counters::counters;

counters! {
    /// Packets that came in, of any kind.
    received,
    /// Answers with records from the catalog.
    answered,
    /// Names that are there, but have nothing of that kind now.
    nothing,
    /// Names that are not there, or not for the asker.
    no_name,
    /// Questions of strangers, and such as are never answered.
    refused,
    /// Packets that are no question.
    malformed,
    /// Answers that did not fit and were asked for again by TCP, or may be.
    truncated,
    /// Questions by TCP.
    tcp,
    /// Answers from the cache of others' answers.
    cached,
    /// Questions that were handed to other resolvers.
    forwarded,
    /// Questions to which no other resolver had an answer in time.
    unanswered,
    /// Attempts with one resolver that failed.
    failed_attempts,
    /// Questions that were one too many.
    limited,
}
