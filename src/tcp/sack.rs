//! SACK blocks on the wire (RFC 2018, 3).

use crate::wire::tcp::SackBlock;
use arrayvec::ArrayVec;

/// The options of a header.
pub(super) type Bytes = ArrayVec<u8, 40>;

/// Appends as many of the blocks as fit, behind two NOPs.
pub(super) fn write(bytes: &mut Bytes, blocks: &[SackBlock]) {
    let fit = bytes.remaining_capacity().saturating_sub(4) / 8;
    let blocks = &blocks[..blocks.len().min(fit)];
    if blocks.is_empty() {
        return;
    }
    bytes.extend([1, 1, 5, 2 + 8 * blocks.len() as u8]);
    for block in blocks {
        bytes.extend(block.left.to_be_bytes());
        bytes.extend(block.right.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tcp::parse_options;

    #[test]
    fn three_blocks_fit_beside_a_timestamp_and_four_without() {
        let blocks = [1u32, 2, 3, 4].map(|i| SackBlock { left: i * 100, right: i * 100 + 50 });
        for (start, fit) in [(0, 4), (12, 3)] {
            let mut bytes = Bytes::new();
            bytes.extend(core::iter::repeat_n(1, start));
            write(&mut bytes, &blocks);
            assert!(bytes.len().is_multiple_of(4));
            assert_eq!(parse_options(&bytes).unwrap().sack[..], blocks[..fit]);
        }
        let mut none = Bytes::new();
        write(&mut none, &[]);
        assert!(none.is_empty());
    }
}
