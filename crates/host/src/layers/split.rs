//! Dividing what is missing among those who have it.

/// Divides things of these sizes among `parts` so that all have about as much to do: the largest
/// first, each to whoever has the least. Gives the indexes of each part's things, in their order.
pub(super) fn split(sizes: &[u64], parts: usize) -> Vec<Vec<usize>> {
    let mut shares = vec![(0_u64, Vec::new()); parts];
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(sizes[i]), i));
    for i in order {
        // The earlier ones first among equals; with no parts there is nobody.
        let least = shares.iter_mut().min_by_key(|(sum, _)| *sum);
        if let Some((sum, share)) = least {
            // Each thing costs a little, however small it is.
            *sum = sum.saturating_add(sizes[i]).saturating_add(1);
            share.push(i);
        }
    }
    let sorted = |(_, mut share): (u64, Vec<usize>)| {
        share.sort_unstable();
        share
    };
    shares.into_iter().map(sorted).collect()
}

/// Sizes of layers as far as the image's history tells: entries that made no layer have none.
/// Where it does not fit, all are taken to have the same.
pub(super) fn estimate(history: &[u64], layers: usize, total: u64) -> Vec<u64> {
    let sizes: Vec<u64> = history.iter().copied().filter(|s| *s > 0).collect();
    if sizes.len() == layers {
        return sizes;
    }
    let count = u64::try_from(layers).unwrap_or(u64::MAX).max(1);
    vec![total / count; layers]
}

/// How many layers, from the lowest on, are here: Docker keeps a layer by the digests of all below
/// it as well, so that the same layer on top of others is another one.
pub(super) fn present<T: PartialEq>(wanted: &[T], here: &[Vec<T>]) -> usize {
    let common = |other: &Vec<T>| wanted.iter().zip(other).take_while(|(a, b)| a == b).count();
    here.iter().map(common).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_has_about_as_much_to_do() {
        assert_eq!(split(&[40, 40, 40, 40, 40], 2), [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!(split(&[10, 100, 20, 60], 2), [vec![1], vec![0, 2, 3]]);
        assert_eq!(split(&[7], 3), [vec![0], vec![], vec![]]);
        assert_eq!(split(&[], 2), [Vec::<usize>::new(), Vec::new()]);
        assert_eq!(split(&[1], 0), Vec::<Vec<usize>>::new());
        // Things without a size are not all given to one.
        assert_eq!(split(&[0, 0], 2), [vec![0], vec![1]]);
    }

    #[test]
    fn sizes_are_those_of_the_history_or_all_the_same() {
        assert_eq!(estimate(&[5, 0, 7], 2, 12), [5, 7]);
        assert_eq!(estimate(&[5, 7], 3, 12), [4, 4, 4]);
        assert_eq!(estimate(&[], 0, 12), [0; 0]);
    }

    #[test]
    fn a_layer_is_here_only_with_all_below_it() {
        let here = [vec!["a", "b", "x"], vec!["a"], vec!["b", "c"]];
        assert_eq!(present(&["a", "b", "c"], &here), 2);
        assert_eq!(present(&["c", "b"], &here), 0);
        assert_eq!(present(&["a", "b", "x"], &here), 3);
        assert_eq!(present(&["a"], &[]), 0);
    }
}
