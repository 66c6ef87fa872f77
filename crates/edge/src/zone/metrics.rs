//! What the server of the zones did, in numbers that only grow.

use crate::counters::counters;

counters! {
    /// Packets that came by UDP, of any kind.
    udp,
    /// Questions that came by TCP.
    tcp,
    /// Answers with records.
    answered,
    /// Answers that others know.
    referred,
    /// Names that are there, but have nothing of that type.
    nothing,
    /// Names that are not there.
    no_name,
    /// Questions for other zones, and such as are not answered.
    refused,
    /// Packets that are no question.
    malformed,
    /// Answers that did not fit and are asked for again by TCP.
    truncated,
    /// Answers that were not sent as there were too many of their kind.
    rate_limited,
    /// Answers that were cut off for the same reason.
    rate_slipped,
    /// Connections that were one too many.
    connections_refused,
    /// Signatures that were not right.
    bad_signatures,
    /// Whole zones that were sent.
    transfers,
    /// Differences that were sent.
    differences,
    /// Transfers that were asked for by somebody who may not have them.
    transfers_refused,
    /// Secondaries that were told of a change and said that they know.
    notified,
    /// Secondaries that were told and said nothing, or no.
    not_notified,
    /// Questions that were handed to other resolvers.
    forwarded,
}
