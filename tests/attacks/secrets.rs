//! What an attacker would have to guess: ports (RFC 6056), sequence numbers
//! (RFC 6528), places in the table of flows.

use super::bed::*;
use ringroad::socket::linux::*;
use ringroad::stack::tcp::{FlowKey, Keyed, SynCookies};
use ringroad::wire::tcp::{Options, Segment};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

fn seeded(seed: u64) -> Keyed {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..].copy_from_slice(&(!seed).to_le_bytes());
    Keyed::new(key)
}

fn key(peer: u32, port: u16) -> FlowKey {
    FlowKey::new(OURS.into(), PORT, Ipv4Addr::from(peer).into(), port)
}

/// Tuples that fall into one bucket of 1024 under one key are spread like any
/// others under another: who does not know the key cannot choose them.
#[test]
fn tuples_chosen_to_collide_under_one_key_do_not_under_another() {
    let known = seeded(1);
    let all = (0..40u32).flat_map(|peer| (1..=u16::MAX).step_by(2).map(move |port| (peer, port)));
    let chosen: Vec<_> = all.filter(|&(p, port)| known.flow(&key(p, port)) % 1024 == 7).collect();
    assert!(chosen.len() > 1000, "{}", chosen.len());
    for seed in 2..10 {
        let other = seeded(seed);
        let mut buckets = BTreeMap::new();
        for &(p, port) in &chosen {
            *buckets.entry(other.flow(&key(p, port)) % 1024).or_insert(0u32) += 1;
        }
        let fullest = buckets.values().max().copied().unwrap();
        // Of 1,280 balls in 1,024 urns the fullest has seven or so.
        assert!(fullest <= 12, "{fullest} under key {seed}");
    }
}

/// Sequential peers and ports, the commonest traffic, are spread as by chance:
/// chi-square over 256 buckets.
#[test]
fn flows_in_sequence_are_spread_evenly() {
    for seed in 0..8 {
        let keyed = seeded(seed);
        let mut buckets = [0f64; 256];
        let count = 64 * 1024;
        for i in 0..count as u32 {
            buckets[(keyed.flow(&key(i >> 10, (i & 1023) as u16 + 1024)) >> 56) as usize] += 1.0;
        }
        let mean = f64::from(count) / 256.0;
        let chi: f64 = buckets.iter().map(|n| (n - mean) * (n - mean) / mean).sum();
        // 255 degrees of freedom: mean 255, deviation 22.6; five deviations.
        assert!((142.0..368.0).contains(&chi), "{chi}");
    }
}

/// Opens `n` connections to `remote` and returns their ports.
fn ports(b: &mut Bed, remote: SocketAddr, n: usize) -> Vec<u16> {
    (0..n)
        .map(|_| {
            let h = b.sockets.socket(AF_INET, SOCK_STREAM, 0).unwrap();
            let _ = b.sockets.connect(h, remote);
            b.take();
            b.sockets.local_addr(h).unwrap().port()
        })
        .collect()
}

#[test]
fn ephemeral_ports_differ_by_destination_and_do_not_repeat_soon() {
    let to = |n: u8| SocketAddr::new([10, 0, 0, n].into(), 80);
    let mut b = Bed::new(|_| ());
    let mut firsts = BTreeSet::new();
    for n in 10..60 {
        let got = ports(&mut b, to(n), 20);
        assert_eq!(got.iter().collect::<BTreeSet<_>>().len(), 20, "{got:?}");
        assert!(got.iter().all(|p| (32768..=60999).contains(p)));
        firsts.insert(got[0]);
    }
    // An attacker who sees his own ports learns nothing of those to others: where
    // the rows begin is spread over the range.
    assert!(firsts.len() >= 48, "{}", firsts.len());
    let (low, high) = (firsts.first().unwrap(), firsts.last().unwrap());
    assert!(high - low > 20_000, "{low} to {high}");
    // And another host, with another secret, begins elsewhere.
    let other = {
        let mut b = Bed::seeded(2);
        ports(&mut b, to(10), 1)[0]
    };
    assert_ne!(other, ports(&mut Bed::new(|_| ()), to(10), 1)[0]);
}

/// The initial sequence number that answers a SYN from this port.
fn isn(b: &mut Bed, port: u16) -> u32 {
    b.put(&Segment { src_port: port, options: Options::default(), ..seg(SYN, 1, 0) }, b"");
    let iss = b.one().seg.seq;
    b.put(&Segment { src_port: port, ..seg(RST, 2, 0) }, b"");
    b.take();
    iss
}

#[test]
fn initial_sequence_numbers_grow_for_one_flow_and_say_nothing_of_another() {
    let mut b = Bed::new(|_| ());
    // One flow: by the clock, 250 a millisecond.
    let first = isn(&mut b, 4000);
    b.wait(ms(40));
    assert_eq!(isn(&mut b, 4000).wrapping_sub(first), 10_000);
    // Of others at the same time: each bit of the differences is set in half of them.
    let all: Vec<u32> = (5000..6000).map(|port| isn(&mut b, port)).collect();
    for bit in 0..32 {
        let ones = all.windows(2).filter(|w| (w[1].wrapping_sub(w[0]) >> bit) & 1 == 1).count();
        assert!((420..580).contains(&ones), "bit {bit}: {ones} of 999");
    }
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 1000);
    // Under another secret they are others.
    assert_ne!(isn(&mut Bed::seeded(2), 4000), first);
}

#[test]
fn cookies_are_as_hard_to_guess() {
    let mut b = Bed::new(|c| c.table.syn_cookies = SynCookies::Always);
    let all: Vec<u32> = (5000..6000).map(|port| isn(&mut b, port)).collect();
    // But for the four bits that name the segment size.
    for bit in 4..32 {
        let ones = all.iter().filter(|n| (*n >> bit) & 1 == 1).count();
        assert!((420..580).contains(&ones), "bit {bit}: {ones} of 1000");
    }
}
