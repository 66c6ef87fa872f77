//! How far a transfer is.

use std::fmt;

use tokio::sync::watch;

use super::Digest;

/// How far the transfer of an image is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// What goes on.
    pub phase: Phase,
    /// The layers that are taken from others, the lowest first; those that are here already are
    /// not among them.
    pub layers: Vec<LayerStatus>,
    /// What went wrong with a node and did not end the transfer, the oldest first.
    pub notes: Vec<String>,
}

/// What goes on in a transfer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// The nodes are asked for the image.
    #[default]
    Asking,
    /// Layers are on their way.
    Fetching,
    /// The Engine takes the image over.
    Loading,
    /// The image is here.
    Done,
}

/// How far a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerStatus {
    /// Its digest.
    pub digest: Digest,
    /// Bytes that are here.
    pub done: u64,
    /// Bytes of all of it: about, until it has begun.
    pub total: u64,
    /// The node that gives it, once it has begun.
    pub from: Option<String>,
    /// Whether it is here and was found to be right.
    pub whole: bool,
}

impl Status {
    /// Bytes that are here, of the layers that are taken from others.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.layers.iter().map(|l| l.done).sum()
    }

    fn so_far(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.layers.iter().filter(|l| l.whole).count();
        let doing = if self.phase == Phase::Loading {
            "Loading "
        } else {
            ""
        };
        write!(
            f,
            "{doing}{whole}/{} layers, {} of {}",
            self.layers.len(),
            Bytes(self.done()),
            Bytes(self.total())
        )
    }

    /// Bytes of the layers that are taken from others: about, until all have begun.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.layers.iter().map(|l| l.total.max(l.done)).sum()
    }
}

/// One line, as in `2/5 layers, 80.0MB of 200MB from n1, n2`, and `Here from n1, n2`.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.phase {
            Phase::Asking => return f.write_str("Asking the nodes"),
            Phase::Done => f.write_str("Here")?,
            Phase::Loading | Phase::Fetching => self.so_far(f)?,
        }
        let mut nodes: Vec<&str> = self
            .layers
            .iter()
            .filter_map(|l| l.from.as_deref())
            .collect();
        nodes.sort_unstable();
        nodes.dedup();
        if !nodes.is_empty() {
            write!(f, " from {}", nodes.join(", "))?;
        }
        Ok(())
    }
}

/// One line, as in `5e2bf5aad9e4: 12.0MB of 40.0MB from n1`.
impl fmt::Display for LayerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.digest.short())?;
        match (&self.from, self.whole) {
            (_, true) => write!(f, "{}", Bytes(self.total))?,
            (Some(_), false) => write!(f, "{} of {}", Bytes(self.done), Bytes(self.total))?,
            (None, false) => return f.write_str("waiting"),
        }
        match &self.from {
            Some(from) => write!(f, " from {from}"),
            None => Ok(()),
        }
    }
}

/// A number of bytes for people, as Docker writes it.
pub(super) struct Bytes(pub(super) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut divisor = 1_u64;
        for unit in ["B", "kB", "MB", "GB"] {
            let (whole, tenth) = (self.0 / divisor, self.0 % divisor * 10 / divisor);
            if whole < 1000 || unit == "GB" {
                return match (divisor, whole) {
                    (2.., ..100) => write!(f, "{whole}.{tenth}{unit}"),
                    _ => write!(f, "{whole}{unit}"),
                };
            }
            divisor *= 1000;
        }
        Ok(())
    }
}

/// Notes how far a transfer is, for whoever watches.
#[derive(Debug, Clone)]
pub(super) struct Tracker(watch::Sender<Status>);

impl Tracker {
    pub(super) fn new() -> (Self, watch::Receiver<Status>) {
        let (sender, receiver) = watch::channel(Status::default());
        (Self(sender), receiver)
    }

    pub(super) fn phase(&self, phase: Phase) {
        self.0.send_modify(|s| s.phase = phase);
    }

    pub(super) fn layers(&self, layers: Vec<LayerStatus>) {
        self.0.send_modify(|s| s.layers = layers);
    }

    pub(super) fn note(&self, note: String) {
        self.0.send_modify(|s| s.notes.push(note));
    }

    /// Changes what is said of a layer, if it is one that is told of.
    pub(super) fn layer(&self, digest: &Digest, change: impl FnOnce(&mut LayerStatus)) {
        self.0.send_modify(|s| {
            if let Some(layer) = s.layers.iter_mut().find(|l| l.digest == *digest) {
                change(layer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_in_a_line() {
        let layer = |text: &str, done, total, from: Option<&str>| LayerStatus {
            digest: Digest::of(text),
            done,
            total,
            from: from.map(str::to_owned),
            whole: done == total,
        };
        let mut status = Status {
            phase: Phase::Fetching,
            layers: vec![
                layer("a", 40_000_000, 40_000_000, Some("n2")),
                layer("b", 1_500_000, 40_000_000, Some("n1")),
                layer("c", 0, 40_000_000, None),
            ],
            notes: Vec::new(),
        };
        assert_eq!(
            status.to_string(),
            "1/3 layers, 41.5MB of 120MB from n1, n2"
        );
        assert_eq!(
            status.layers[1].to_string(),
            "3e23e8160039: 1.5MB of 40.0MB from n1"
        );
        assert_eq!(status.layers[2].to_string(), "2e7d2c03a950: waiting");
        status.phase = Phase::Loading;
        assert!(status.to_string().starts_with("Loading 1/3"));
        assert_eq!(Bytes(999).to_string(), "999B");
        assert_eq!(Bytes(12_345_000_000_000).to_string(), "12345GB");
    }
}
