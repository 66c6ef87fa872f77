//! Which backend is at which number of a numbered map.
//!
//! A map has more numbers than there are backends, and as many as before when one comes or goes:
//! so the rule that draws the numbers stays as it is, and only entries change. Another rule would
//! have the kernel check the whole table again, which takes the longer the more there is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Numbers for up to [`A_FEW`] backends: each of 1, 2, 3 and 4 has an equal share.
const SMALL: usize = 12;
const A_FEW: usize = 4;
/// Numbers for more: this, doubled until each backend has [`EACH`]. Many counts divide it.
const LARGE: usize = 60;
const EACH: usize = 8;
/// Numbers of a map that is read by the hash of the client, at least.
const FEWEST_HASHED: usize = 256;
/// The most: of more backends than that, some get no clients.
const MOST: usize = 1 << 17;
const MOST_HASHED: usize = 4096;

/// Numbers to be drawn one after another. Those of a backend that is gone go to the others evenly,
/// and a new one takes as many from each, so that open sequences are disturbed little. A new map
/// begins anywhere: clients that make one connection each shall not all meet the same backend.
pub(crate) fn in_turn(known: &[IpAddr], wanted: &BTreeSet<IpAddr>, salt: u64) -> Vec<IpAddr> {
    let count = numbers(wanted.len());
    let is_kept = known.iter().any(|backend| wanted.contains(backend));
    if known.len() != count || !is_kept {
        let all: Vec<IpAddr> = wanted.iter().copied().collect();
        let start = usize::try_from(salt % all.len().max(1) as u64).unwrap_or(0);
        return all
            .iter()
            .copied()
            .cycle()
            .skip(start)
            .take(count)
            .collect();
    }
    let mut held: BTreeMap<IpAddr, usize> = wanted.iter().map(|backend| (*backend, 0)).collect();
    for backend in known {
        held.entry(*backend).and_modify(|count| *count += 1);
    }
    let quotas = quotas(&held, count);
    // Of one that has too many, some are taken, spread over all it has.
    let mut met: BTreeMap<IpAddr, usize> = BTreeMap::new();
    let mut places: Vec<Option<IpAddr>> = Vec::with_capacity(count);
    for backend in known {
        let (Some(held), Some(quota)) = (held.get(backend), quotas.get(backend)) else {
            places.push(None);
            continue;
        };
        let index = met.entry(*backend).or_default();
        let surplus = held.saturating_sub(*quota);
        let is_taken = (*index + 1) * surplus / held > *index * surplus / held;
        *index += 1;
        places.push((!is_taken).then_some(*backend));
    }
    let lacking = |(backend, quota): (&IpAddr, &usize)| {
        let held = held.get(backend).copied().unwrap_or(0);
        (quota.saturating_sub(held) > 0).then_some((*backend, quota.saturating_sub(held)))
    };
    let mut lacking: Vec<(IpAddr, usize)> = quotas.iter().filter_map(lacking).collect();
    let mut turn = 0;
    for place in places.iter_mut().filter(|place| place.is_none()) {
        let index = turn % lacking.len().max(1);
        let Some((backend, missing)) = lacking.get_mut(index) else {
            break;
        };
        *place = Some(*backend);
        *missing -= 1;
        if *missing == 0 {
            lacking.remove(index);
            turn = index;
        } else {
            turn = index + 1;
        }
    }
    places.into_iter().flatten().collect()
}

fn numbers(backends: usize) -> usize {
    match backends {
        0 => 0,
        _ if backends <= A_FEW => SMALL,
        _ => {
            let mut count = LARGE;
            while count < backends * EACH && count < MOST {
                count *= 2;
            }
            count
        }
    }
}

/// How many numbers each is to have: the same, and those that have most may keep one more.
fn quotas(held: &BTreeMap<IpAddr, usize>, count: usize) -> BTreeMap<IpAddr, usize> {
    let (share, mut extra) = (count / held.len(), count % held.len());
    let mut order: Vec<(&IpAddr, &usize)> = held.iter().collect();
    order.sort_by_key(|(_, held)| std::cmp::Reverse(**held));
    let quota = |(backend, _): (&IpAddr, &usize)| {
        let more = usize::from(extra > 0);
        extra -= more;
        (*backend, share + more)
    };
    order.into_iter().map(quota).collect()
}

/// Many numbers, each of the backend that weighs most for it: if a backend comes or goes, only the
/// clients that it gets or had are moved. What is known already only saves work.
pub(crate) fn by_weight(known: &[IpAddr], wanted: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
    let count = (wanted.len() * EACH)
        .next_power_of_two()
        .clamp(FEWEST_HASHED, MOST_HASHED);
    let known = if known.len() == count { known } else { &[] };
    let before: BTreeSet<IpAddr> = known.iter().copied().collect();
    let newcomers: Vec<IpAddr> = wanted.difference(&before).copied().collect();
    let heaviest = |number: usize| {
        let rivals: &mut dyn Iterator<Item = IpAddr> = match known.get(number) {
            Some(owner) if wanted.contains(owner) => &mut newcomers.iter().chain([owner]).copied(),
            _ => &mut wanted.iter().copied(),
        };
        rivals.max_by_key(|backend| (weight(number as u64, *backend), *backend))
    };
    (0..count).filter_map(heaviest).collect()
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

    fn shares(places: &[IpAddr]) -> Vec<usize> {
        let mut shares: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for backend in places {
            *shares.entry(*backend).or_default() += 1;
        }
        shares.into_values().collect()
    }

    #[test]
    fn few_backends_have_equal_shares_and_take_turns() {
        for count in 1..=4_u8 {
            let wanted = addresses(&(1..=count).collect::<Vec<_>>());
            let places = in_turn(&[], &wanted, 1);
            assert_eq!(
                shares(&places),
                vec![12 / usize::from(count); usize::from(count)]
            );
            let each: BTreeSet<IpAddr> = places[..usize::from(count)].iter().copied().collect();
            assert_eq!(each, wanted);
        }
    }

    #[test]
    fn the_others_keep_their_numbers() {
        let known = in_turn(&[], &addresses(&[1, 2, 3, 4]), 0);
        let fewer = in_turn(&known, &addresses(&[1, 3, 4]), 9);
        assert_eq!(shares(&fewer), [4, 4, 4]);
        assert!(
            known
                .iter()
                .zip(&fewer)
                .all(|(old, new)| old == new || *old == address(2))
        );
        let more = in_turn(&fewer, &addresses(&[1, 3, 4, 7]), 9);
        assert_eq!(shares(&more), [3, 3, 3, 3]);
        assert!(
            fewer
                .iter()
                .zip(&more)
                .all(|(old, new)| old == new || *new == address(7))
        );
        // Not all in one place.
        let first = more.iter().position(|backend| *backend == address(7));
        let last = more.iter().rposition(|backend| *backend == address(7));
        assert!(last.unwrap() - first.unwrap() >= 3, "{more:?}");
    }

    #[test]
    fn new_maps_begin_anywhere() {
        let wanted = addresses(&[1, 2, 3]);
        let first: BTreeSet<IpAddr> = (0..20).map(|salt| in_turn(&[], &wanted, salt)[0]).collect();
        assert_eq!(first, wanted);
    }

    #[test]
    fn only_the_clients_of_a_backend_that_goes_are_moved() {
        let before = by_weight(&[], &addresses(&[1, 2, 3, 4, 5]));
        let after = by_weight(&[], &addresses(&[1, 2, 4, 5]));
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

    fn some() -> impl Strategy<Value = BTreeSet<IpAddr>> {
        prop::collection::btree_set(any::<u8>().prop_map(address), 0..20)
    }

    proptest! {
        #[test]
        fn all_have_a_fair_share_whatever_was_before(
            known in prop::collection::vec(some(), 0..4),
            wanted in some(),
            salt: u64,
        ) {
            let mut places = Vec::new();
            for before in &known {
                places = in_turn(&places, before, salt);
            }
            let places = in_turn(&places, &wanted, salt);
            prop_assert_eq!(places.len(), numbers(wanted.len()));
            let shares = shares(&places);
            prop_assert_eq!(shares.len(), wanted.len());
            let least = shares.iter().min().copied().unwrap_or(0);
            prop_assert!(shares.iter().all(|share| *share <= least + 1), "{:?}", shares);
            prop_assert!(places.iter().all(|backend| wanted.contains(backend)));
        }

        #[test]
        fn what_is_known_makes_no_difference(first in some(), second in some()) {
            let known = by_weight(&[], &first);
            prop_assert_eq!(by_weight(&known, &second), by_weight(&[], &second));
        }
    }
}
