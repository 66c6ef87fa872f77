//! Who has connections: so many in all, and so many of one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Places for connections.
#[derive(Debug)]
pub struct Places {
    all: usize,
    each: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    count: usize,
    of: HashMap<IpAddr, usize>,
}

/// The place of a connection, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    of: IpAddr,
}

/// Whose a connection is: of IPv6 a machine has as many addresses as it likes in its network.
fn owner(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

impl Places {
    /// So many in all, and so many of one address (of IPv6: of one network of 64 bits).
    #[must_use]
    pub fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self {
            all,
            each,
            taken: Mutex::default(),
        })
    }

    /// A place for a connection from an address; none if there are too many.
    pub fn take(self: &Arc<Self>, of: IpAddr) -> Option<Place> {
        let of = owner(of);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.of.get(&of).copied().unwrap_or(0);
        if taken.count >= self.all || own >= self.each {
            return None;
        }
        taken.count += 1;
        taken.of.insert(of, own + 1);
        let places = Arc::clone(self);
        Some(Place { places, of })
    }

    /// Whether more than half of them are taken.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.count > self.all / 2
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let taken = self.places.taken.lock();
        let mut taken = taken.unwrap_or_else(PoisonError::into_inner);
        taken.count -= 1;
        if let Some(own) = taken.of.get_mut(&self.of) {
            *own -= 1;
            if *own == 0 {
                taken.of.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_all_places() {
        let places = Places::new(3, 2);
        let take = |address: &str| places.take(address.parse().unwrap());
        let (first, second) = (take("10.0.0.1").unwrap(), take("::ffff:10.0.0.1").unwrap());
        assert!(take("10.0.0.1").is_none() && places.is_crowded());
        let third = take("fd00::1").unwrap();
        assert!(take("10.0.0.2").is_none());
        drop((first, second));
        // A network of IPv6 is one machine's.
        let fourth = take("fd00::2").unwrap();
        assert!(take("fd00::3").is_none() && take("fd00:0:0:1::3").is_some());
        drop((third, fourth));
        assert!(places.taken.lock().unwrap().of.is_empty() && !places.is_crowded());
    }
}
