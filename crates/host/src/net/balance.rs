//! Which backend is at which number of a numbered map.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// The fewest numbers of a map that is read by the hash of the client: the more there are for
/// each backend, the more even their shares.
const FEWEST: usize = 256;
const EACH: usize = 8;

/// One number for each backend. Those that have one already keep it, and the last takes the place
/// of one that is gone: so a change moves two entries at most, however many there are. A new map
/// begins anywhere, so that clients that make one connection each do not all meet the same backend.
pub(crate) fn in_turn(known: &[IpAddr], wanted: &BTreeSet<IpAddr>, salt: u64) -> Vec<IpAddr> {
    let mut seen = BTreeSet::new();
    let kept = |backend: &IpAddr| wanted.contains(backend) && seen.insert(*backend);
    let mut places: Vec<Option<IpAddr>> = known.iter().copied().map(Some).collect();
    let mut kept = kept;
    for place in &mut places {
        *place = place.filter(&mut kept);
    }
    let mut newcomers: Vec<IpAddr> = wanted.difference(&seen).copied().collect();
    if seen.is_empty() && !newcomers.is_empty() {
        let start = usize::try_from(salt % newcomers.len() as u64).unwrap_or(0);
        newcomers.rotate_left(start);
        return newcomers;
    }
    newcomers.reverse();
    for place in &mut places {
        if place.is_none() {
            *place = newcomers.pop();
        }
    }
    newcomers.reverse();
    places.extend(newcomers.into_iter().map(Some));
    let mut next = 0;
    while next < places.len() {
        if places[next].is_some() {
            next += 1;
            continue;
        }
        // The last may be empty as well, or be this one.
        let last = places.pop().flatten();
        if let Some(place) = places.get_mut(next) {
            *place = last;
        }
    }
    places.into_iter().flatten().collect()
}

/// Many numbers, each of the backend that weighs most for it: if a backend comes or goes, only the
/// clients that it gets or had are moved.
pub(crate) fn by_weight(wanted: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
    let count = (wanted.len() * EACH).next_power_of_two().max(FEWEST);
    let heaviest = |number: usize| {
        wanted
            .iter()
            .max_by_key(|backend| weight(number as u64, **backend))
    };
    (0..count)
        .filter_map(|number| heaviest(number).copied())
        .collect()
}

fn weight(number: u64, backend: IpAddr) -> u64 {
    match backend {
        IpAddr::V4(address) => mix(number, &address.octets()),
        IpAddr::V6(address) => mix(number, &address.octets()),
    }
}

/// Some number made of others, the same on every machine (splitmix64 over the bytes).
pub(crate) fn mix(seed: u64, bytes: &[u8]) -> u64 {
    let step = |state: u64, byte: &u8| {
        let mut z = (state ^ u64::from(*byte)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    bytes.iter().fold(step(seed, &0), step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    fn addresses(numbers: &[u8]) -> BTreeSet<IpAddr> {
        numbers.iter().map(|number| address(*number)).collect()
    }

    #[test]
    fn one_backend_less_moves_only_the_last() {
        let known = in_turn(&[], &addresses(&[1, 2, 3, 4]), 0);
        let fewer = in_turn(&known, &addresses(&[1, 3, 4]), 9);
        assert_eq!(fewer, [address(1), address(4), address(3)]);
        let more = in_turn(&fewer, &addresses(&[1, 3, 4, 7]), 9);
        assert_eq!(more, [address(1), address(4), address(3), address(7)]);
    }

    #[test]
    fn new_maps_begin_anywhere() {
        let wanted = addresses(&[1, 2, 3]);
        let first: BTreeSet<IpAddr> = (0..20).map(|salt| in_turn(&[], &wanted, salt)[0]).collect();
        assert_eq!(first, wanted);
    }

    #[test]
    fn only_the_clients_of_a_backend_that_goes_are_moved() {
        let before = by_weight(&addresses(&[1, 2, 3, 4, 5]));
        let after = by_weight(&addresses(&[1, 2, 4, 5]));
        assert_eq!(before.len(), after.len());
        for (old, new) in before.iter().zip(&after) {
            assert!(old == new || *old == address(3));
            assert_ne!(*new, address(3));
        }
        let share = before
            .iter()
            .filter(|backend| **backend == address(3))
            .count();
        assert!((26..=77).contains(&share), "{share} of 256");
    }

    proptest! {
        #[test]
        fn each_wanted_backend_has_one_number(known: Vec<u8>, wanted: BTreeSet<u8>, salt: u64) {
            let known: Vec<IpAddr> = known.into_iter().map(address).collect();
            let wanted: BTreeSet<IpAddr> = wanted.into_iter().map(address).collect();
            let mut result = in_turn(&known, &wanted, salt);
            prop_assert_eq!(result.len(), wanted.len());
            result.sort();
            prop_assert_eq!(result, wanted.into_iter().collect::<Vec<_>>());
        }
    }
}
