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
fn every_length_and_alignment_gives_the_definition() {
    let bytes: Vec<u8> = (0..2200u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    for len in 0..2100 {
        for start in [0, 1, 2, 3, 5, 8, 13, 31] {
            check(&bytes[start..start + len], len % 8);
        }
    }
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
#[should_panic(expected = "range end")]
fn a_copy_that_does_not_fit_is_refused() {
    copy_and_sum(&mut [0; 3], &[0; 4]);
}

#[test]
fn a_prefetch_takes_anything() {
    prefetch(&7u64);
    prefetch::<[u8]>(&[]);
    prefetch("text");
    assert!(!name().is_empty());
}

proptest! {
    #[test]
    fn any_bytes_give_the_definition(
        bytes in prop::collection::vec(any::<u8>(), 0..4096),
        skip in 0usize..64,
        shift in 0usize..16,
    ) {
        check(&bytes[skip.min(bytes.len())..], shift);
    }
}
