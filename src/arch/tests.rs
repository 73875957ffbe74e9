use super::*;
use proptest::prelude::*;

/// The definition (RFC 1071), word by word.
fn scalar(bytes: &[u8]) -> u16 {
    let mut total = 0u64;
    for pair in bytes.chunks(2) {
        total += u64::from(u16::from_le_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

fn check(bytes: &[u8], shift: usize) {
    let expected = scalar(bytes);
    assert_eq!(sum(bytes), expected, "length {}", bytes.len());
    for plus in [0, u32::from(!expected), u32::from(!expected) + 0xffff, 0xffff, 7] {
        let total = u64::from(expected) + u64::from(plus);
        assert_eq!(is_ones(bytes, plus), total != 0 && total % 0xffff == 0, "length {}", bytes.len());
    }
    // The copy may stand at another distance from alignment, and must not write
    // beyond its end.
    let mut dst = vec![0xa5; bytes.len() + shift + 9];
    assert_eq!(copy_and_sum(&mut dst[shift..], bytes), expected, "length {}", bytes.len());
    assert_eq!(&dst[shift..shift + bytes.len()], bytes);
    assert!(dst[..shift].iter().chain(&dst[shift + bytes.len()..]).all(|b| *b == 0xa5));
}

#[test]
fn a_short_copy_is_one_at_every_length() {
    let bytes = Bytes::random();
    for len in 0..=SHORT_COPY {
        for shift in 0..9 {
            let mut dst = vec![0xa5; len + shift + 9];
            copy_short(&mut dst[shift..shift + len], &bytes.0[..len]);
            assert_eq!(&dst[shift..shift + len], &bytes.0[..len]);
            assert!(dst[..shift].iter().chain(&dst[shift + len..]).all(|b| *b == 0xa5));
        }
    }
}

#[test]
fn a_short_copy_sums_as_a_long_one_does() {
    let bytes = Bytes::random();
    for len in 0..=SHORT {
        let (mut one, mut other) = ([0; SHORT], [0; SHORT]);
        let sum = copy_and_sum_short(&mut one, &bytes.0[..len]);
        assert_eq!(sum, copy_and_sum(&mut other, &bytes.0[..len]));
        assert_eq!(one, other);
    }
}

/// Random bytes that begin at a line.
struct Bytes(Vec<u8>);

impl Bytes {
    fn new(byte: impl FnMut(u32) -> u8) -> Self {
        Self((0..9200).map(byte).collect())
    }

    fn random() -> Self {
        Self::new(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8)
    }

    fn from(&self, start: usize) -> &[u8] {
        &self.0[self.0.as_ptr().align_offset(64) + start..]
    }
}

/// The definition's sum of the first bytes, of none up to all.
fn every_length(bytes: &[u8]) -> impl Iterator<Item = u16> {
    let mut total = 0u64;
    let sums = bytes.iter().enumerate().map(move |(i, byte)| {
        total += u64::from(*byte) << (i % 2 * 8);
        if total == 0 { 0 } else { ((total - 1) % 0xffff + 1) as u16 }
    });
    std::iter::once(0).chain(sums)
}

#[test]
fn every_length_in_turn_is_the_definition() {
    let bytes = Bytes::random();
    for (len, sum) in every_length(&bytes.0).enumerate() {
        assert_eq!(sum, scalar(&bytes.0[..len]));
    }
}

fn lengths(bytes: &[u8]) -> impl Iterator<Item = (&[u8], u16)> {
    let all = every_length(&bytes[..9000]).enumerate();
    all.filter(|(len, _)| *len <= 4096 || *len == 9000).map(|(len, sum)| (&bytes[..len], sum))
}

#[test]
fn every_unit_gives_the_definition_at_every_length_and_alignment() {
    for bytes in [Bytes::random(), Bytes::new(|_| 0xff)] {
        for start in 0..64 {
            for (part, expected) in lengths(bytes.from(start)) {
                for unit in units() {
                    assert_eq!(unit.sum(part), expected, "{}: {start}, {}", unit.name(), part.len());
                }
            }
        }
    }
}

/// The copy stands at each distance from a line, and nothing is written around it.
#[test]
fn every_unit_copies_at_every_length_and_alignment() {
    let (bytes, mut space) = (Bytes::random(), vec![0; 9300]);
    let line = space.as_ptr().align_offset(64);
    let space = &mut space[line..];
    for start in 0..64 {
        for (part, expected) in lengths(bytes.from(start)) {
            // Each distance between the two comes up at each alignment of one.
            let (at, end) = ((start * 5 + part.len()) % 64, (start * 5 + part.len()) % 64 + part.len());
            for unit in units() {
                space[..end + 64].fill(0xa5);
                let sum = unit.copy_and_sum(&mut space[at..], part);
                assert_eq!(sum, expected, "{}: {start}, {}", unit.name(), part.len());
                assert_eq!(&space[at..end], part, "{}: {start}", unit.name());
                assert!(space[..at] == [0xa5; 64][..at] && space[end..end + 64] == [0xa5; 64]);
            }
        }
    }
}

#[test]
fn short_copies_are_right_between_all_alignments() {
    let (bytes, mut space) = (Bytes::random(), vec![0; 640]);
    let line = space.as_ptr().align_offset(64);
    let space = &mut space[line..];
    for (start, at) in (0..64).flat_map(|start| (0..64).map(move |at| (start, at))) {
        for (part, expected) in lengths(bytes.from(start)).take(300) {
            let end = at + part.len();
            space[..end + 64].fill(0xa5);
            assert_eq!(copy_and_sum(&mut space[at..], part), expected);
            assert_eq!(&space[at..end], part);
            assert!(space[..at] == [0xa5; 64][..at] && space[end..end + 64] == [0xa5; 64]);
        }
    }
}

#[test]
fn every_length_gives_the_definition() {
    let bytes = Bytes::random();
    for len in 0..2100 {
        for start in [0, 1, 2, 3, 5, 8, 13, 31] {
            check(&bytes.from(start)[..len], len % 8);
        }
    }
}

/// What is chosen is the first that there is; the portable one always is.
#[test]
fn the_fastest_unit_is_chosen() {
    assert_eq!(units().next().map(Unit::name), Some(name()));
    assert_eq!(units().last().map(Unit::name), Some("portable"));
    #[cfg(target_arch = "x86_64")]
    assert_eq!(units().any(|u| u.name() == "AVX2"), is_x86_feature_detected!("avx2"));
    #[cfg(target_arch = "aarch64")]
    assert_eq!(name(), "NEON");
}

#[test]
fn extremes_give_the_definition() {
    for len in [0, 1, 2, 7, 8, 64, 255, 256, 1460, 9000, 65_535, (1 << 19) + 3, (1 << 20) + 1] {
        check(&vec![0xff; len], 1);
        check(&vec![0; len], 0);
        check(&vec![0x80; len], 3);
    }
}

#[test]
fn long_runs_are_summed_in_parts() {
    let bytes: Vec<u8> = (0..200_003u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 9) as u8).collect();
    for len in [65_534, 65_535, 65_536, 65_537, 131_072, 131_073, 200_003] {
        for unit in units() {
            let (expected, mut dst) = (scalar(&bytes[..len]), vec![0; len + 1]);
            assert_eq!(unit.sum(&bytes[..len]), expected, "{}: {len}", unit.name());
            assert_eq!(unit.copy_and_sum(&mut dst, &bytes[..len]), expected, "{}: {len}", unit.name());
            assert_eq!(dst[..len], bytes[..len]);
            assert_eq!(dst[len], 0);
        }
    }
}

#[test]
fn no_unit_copies_to_where_there_is_no_room() {
    for unit in units() {
        for len in [1, 40, 64, 300] {
            let copy = || unit.copy_and_sum(&mut vec![0; len - 1], &vec![0; len]);
            assert!(std::panic::catch_unwind(copy).is_err(), "{}: {len}", unit.name());
        }
    }
}

#[test]
#[should_panic(expected = "range end")]
fn a_copy_that_does_not_fit_is_refused() {
    copy_and_sum(&mut [0; 3], &[0; 4]);
}

#[test]
fn a_prefetch_takes_anything() {
    prefetch(&7u64);
    prefetch::<[u8]>(&[]);
    prefetch("text");
    prefetch_front(&[7u8; 1000], 1000);
    prefetch_front(&(), 0);
    assert!(!name().is_empty());
}

proptest! {
    #[test]
    fn any_bytes_give_the_definition(
        bytes in prop::collection::vec(any::<u8>(), 0..4096),
        skip in 0usize..64,
        shift in 0usize..16,
    ) {
        let bytes = &bytes[skip.min(bytes.len())..];
        check(bytes, shift);
        for unit in units() {
            let mut dst = vec![0; shift + bytes.len()];
            prop_assert_eq!(unit.sum(bytes), scalar(bytes));
            prop_assert_eq!(unit.copy_and_sum(&mut dst[shift..], bytes), scalar(bytes));
            prop_assert_eq!(&dst[shift..], bytes);
        }
    }

    #[test]
    fn folding_keeps_the_remainder(sum: u64) {
        for sum in [sum, sum >> 32, sum >> 48, u64::MAX - (sum >> 50), sum / 0xffff * 0xffff] {
            let folded = |sum: u64| if sum == 0 { 0 } else { ((sum - 1) % 0xffff + 1) as u16 };
            prop_assert_eq!(fold(sum), folded(sum));
            prop_assert_eq!(fold32(sum as u32), folded(sum as u32 as u64));
        }
    }
}
