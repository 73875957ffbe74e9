//! VLAN tags (IEEE 802.1Q), between the Ethernet addresses and the EtherType of
//! what is carried.

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a tag, behind the EtherType that announces it.
pub const TAG_LEN: usize = 4;

/// A tag as it stands behind EtherType [`super::ethernet::VLAN`].
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Tag {
    control: U16,
    /// Type of what follows the tag.
    pub ethertype: U16,
}

impl Tag {
    /// A tag of priority 0 to 7 and VLAN 0 (priority only) to 4094; higher bits
    /// are cut off.
    pub fn new(priority: u8, vlan: u16, ethertype: u16) -> Self {
        let control = u16::from(priority & 7) << 13 | vlan & 0xfff;
        Self { control: U16::new(control), ethertype: U16::new(ethertype) }
    }

    /// The VLAN's number.
    pub fn vlan(&self) -> u16 {
        self.control.get() & 0xfff
    }

    /// The priority, 0 to 7.
    pub fn priority(&self) -> u8 {
        (self.control.get() >> 13) as u8
    }

    /// True where the frame may be dropped first.
    pub fn drop_eligible(&self) -> bool {
        self.control.get() & 0x1000 != 0
    }
}

/// Splits what follows the Ethernet header into tag and rest; `None` if it is too
/// short.
#[inline]
pub fn parse(bytes: &[u8]) -> Option<(&Tag, &[u8])> {
    Tag::ref_from_prefix(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_reads_back() {
        let tag = Tag::new(5, 100, super::super::ethernet::IPV4);
        assert_eq!(tag.as_bytes(), [0xa0, 0x64, 0x08, 0x00]);
        let bytes = [tag.as_bytes(), &[1, 2]].concat();
        let (read, rest) = parse(&bytes).unwrap();
        assert_eq!((read, rest), (&tag, &[1, 2][..]));
        assert_eq!((read.priority(), read.vlan(), read.drop_eligible()), (5, 100, false));
        assert!(parse(&bytes[..3]).is_none());
    }
}
