//! The failure detector in its own time.

use super::*;
use rand::SeedableRng;

fn swims(n: u8) -> Vec<Swim> {
    (1..=n)
        .map(|i| {
            let life = Life {
                node: NodeId([i; 32]),
                epoch: 1,
            };
            Swim::new(
                life,
                &Timing::default(),
                StdRng::seed_from_u64(u64::from(i)),
            )
        })
        .collect()
}

/// Runs all nodes but the dead for a while, in steps of 10 ms of their own time.
fn run(swims: &mut [Swim], dead: &[usize], now: &mut Instant, millis: u64) {
    let end = *now + Duration::from_millis(millis);
    while *now < end {
        *now += Duration::from_millis(10);
        let mut mail: Vec<Outgoing> = Vec::new();
        for (i, swim) in swims.iter_mut().enumerate() {
            if !dead.contains(&i) {
                mail.extend(swim.tick(*now));
            }
        }
        while let Some((to, datagram)) = mail.pop() {
            let i = swims.iter().position(|s| s.life().node == to).unwrap();
            if !dead.contains(&i) {
                mail.extend(swims[i].heard(&datagram, *now));
            }
        }
    }
}

fn meet(swims: &mut [Swim], now: Instant) {
    for i in 0..swims.len() {
        for j in 0..swims.len() {
            if i != j {
                let peer = swims[j].life();
                swims[i].linked(peer, Vec::new(), now);
            }
        }
    }
}

#[test]
fn those_who_think_alike_have_one_digest() {
    let mut swims = swims(3);
    let now = Instant::now();
    let (b, c) = (swims[1].life(), swims[2].life());
    swims[0].linked(b, Vec::new(), now);
    swims[0].linked(c, Vec::new(), now);
    assert_ne!(swims[0].digest(), swims[1].digest());
    let known = swims[0].known(10);
    let a = swims[0].life();
    swims[1].linked(a, known, now);
    assert_eq!(swims[0].digest(), swims[1].digest());
    swims[1].left(c.node, now);
    assert_ne!(swims[0].digest(), swims[1].digest());
    let known = swims[1].known(10);
    swims[0].told(known, now);
    assert_eq!(swims[0].digest(), swims[1].digest());
    assert_eq!(state(&swims[0], 3), Some(Liveness::Down));
}

fn state(swim: &Swim, of: u8) -> Option<Liveness> {
    swim.member(NodeId([of; 32])).map(|m| liveness(&m))
}

#[test]
fn the_silent_are_down_and_come_back() {
    let mut swims = swims(5);
    let mut now = Instant::now();
    meet(&mut swims, now);
    run(&mut swims, &[], &mut now, 3_000);
    for swim in &swims {
        assert!(
            swim.foca
                .iter_membership_state()
                .all(|m| liveness(m) == Liveness::Up)
        );
    }
    run(&mut swims, &[4], &mut now, 20_000);
    for swim in &swims[..4] {
        assert_eq!(state(swim, 5), Some(Liveness::Down));
    }
    run(&mut swims, &[], &mut now, 20_000);
    for swim in &swims[..4] {
        assert_eq!(state(swim, 5), Some(Liveness::Up));
    }
}

#[test]
fn a_lost_link_is_a_suspicion_and_one_that_speaks_up_is_not_down() {
    let mut swims = swims(3);
    let mut now = Instant::now();
    meet(&mut swims, now);
    run(&mut swims, &[], &mut now, 1_000);
    swims[0].lost(NodeId([3; 32]), now);
    assert_eq!(state(&swims[0], 3), Some(Liveness::Suspect));
    run(&mut swims, &[], &mut now, 3_000);
    assert_eq!(state(&swims[0], 3), Some(Liveness::Up));
    swims[0].lost(NodeId([3; 32]), now);
    run(&mut swims, &[2], &mut now, 1_100);
    assert_eq!(state(&swims[0], 3), Some(Liveness::Down));
    assert_eq!(state(&swims[1], 3), Some(Liveness::Down));
}

#[test]
fn who_was_away_itself_accuses_nobody() {
    let mut swims = swims(3);
    let mut now = Instant::now();
    meet(&mut swims, now);
    run(&mut swims, &[], &mut now, 3_000);
    // The machine of one sleeps when it has just asked somebody.
    let mut asked = Vec::new();
    while asked.is_empty() {
        now += Duration::from_millis(10);
        asked = swims[0].tick(now);
    }
    now += Duration::from_secs(60);
    let mut mail = swims[0].tick(now);
    mail.extend(asked);
    let suspects = |swim: &Swim| swim.doubts().0;
    assert_eq!(suspects(&swims[0]), 0);
    while let Some((to, datagram)) = mail.pop() {
        let to = swims.iter().position(|s| s.life().node == to).unwrap();
        mail.extend(swims[to].heard(&datagram, now));
    }
    for _ in 0..300 {
        run(&mut swims, &[], &mut now, 10);
        assert_eq!(suspects(&swims[0]), 0);
    }
}

#[test]
fn news_are_told_once_and_are_no_news_to_those_who_know() {
    let mut swims = swims(3);
    let now = Instant::now();
    swims.iter_mut().for_each(|s| s.set_large(true));
    let (a, b, c) = (swims[0].life(), swims[1].life(), swims[2].life());
    swims[0].linked(b, Vec::new(), now);
    swims[0].linked(c, Vec::new(), now);
    let news = swims[0].news();
    assert_eq!(news.len(), 3, "itself too");
    assert_eq!(swims[0].news(), []);
    assert!(swims[0].told(news.clone(), now).is_empty());
    assert!(!swims[1].has_changed());
    swims[1].told(news, now);
    assert!(swims[1].has_changed());
    assert_eq!(swims[1].news().len(), 3);
    // A suspect hears of it so, and what it answers is news.
    swims[0].lost(b.node, now);
    assert_eq!(state(&swims[0], 2), Some(Liveness::Suspect));
    let doubt = swims[0].news();
    swims[1].told(doubt, now);
    assert!(swims[1].has_changed());
    let answer = swims[1].news();
    assert_eq!(*answer[0].id(), b);
    swims[0].told(answer, now);
    assert_eq!(state(&swims[0], 2), Some(Liveness::Up));
    assert_eq!(state(&swims[1], 1), Some(Liveness::Up));
    assert_eq!(a.epoch, 1);
}

#[test]
fn who_leaves_is_down_at_once() {
    let mut swims = swims(3);
    let mut now = Instant::now();
    meet(&mut swims, now);
    run(&mut swims, &[], &mut now, 1_000);
    swims[0].left(NodeId([2; 32]), now);
    assert_eq!(state(&swims[0], 2), Some(Liveness::Down));
}

proptest::proptest! {
    #[test]
    fn nothing_that_comes_in_makes_it_panic(bytes: Vec<u8>) {
        let mut swim = swims(1).remove(0);
        swim.heard(&bytes, Instant::now());
    }
}
