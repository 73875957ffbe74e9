//! Why a packet, or a part of one, was not used.

macro_rules! reasons {
    ($($name:ident => $text:literal,)*) => {
        /// Why something that came from the wire, or was to go there, was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $(#[doc = $text] $name,)* }

        impl DropReason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// How many reasons there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The reason's name, as counters print it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// What it means, in a sentence.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    EthernetTruncated => "shorter than an Ethernet header",
    EthernetNotForUs => "Ethernet destination is neither ours, broadcast nor a group of ours",
    EtherTypeUnknown => "an EtherType that the stack does not speak",
    ArpMalformed => "an ARP packet of a wrong size, hardware or protocol type",
    ArpConflict => "somebody else says that he has our address (RFC 5227)",
    ArpIgnored => "ARP about others, or about what we need not know",
    ArpRateLimited => "more ARP than the limit allows",
    ArpQueueFull => "the neighbour's queue was full while its address was being resolved",
    NeighborFailed => "the next hop did not answer ARP",
    Ipv4Truncated => "shorter than its IPv4 header says",
    Ipv4BadHeader => "an IPv4 version, header length or total length that cannot be",
    Ipv4BadChecksum => "a wrong IPv4 header checksum",
    Ipv4BadOptions => "malformed IPv4 options",
    Ipv4SourceRoute => "a source route option, which is refused",
    Ipv4LinkBroadcast => "a link broadcast with one host's IPv4 address (RFC 1122, 3.3.6)",
    Ipv4Martian => "a source or destination address that cannot be (RFC 1122, 3.2.1.3)",
    Ipv4NotForUs => "an IPv4 destination that is not ours",
    Ipv4ProtocolUnknown => "an IP protocol that the stack does not speak",
    Ipv6Truncated => "shorter than its IPv6 header says",
    Ipv6BadHeader => "an IPv6 version that cannot be",
    Ipv6BadExtension => "malformed, too many or refused IPv6 extension headers",
    FragmentDuplicate => "a fragment that came before",
    FragmentOverlap => "a fragment that overlaps another",
    FragmentTooLarge => "fragments of more than 65,535 bytes, or of a wrong size",
    FragmentTableFull => "no room for another datagram being reassembled",
    FragmentTimeout => "fragments that were not complete in time",
    IcmpMalformed => "an ICMP message too short or with a wrong checksum",
    IcmpTypeUnknown => "an ICMP type that the stack does not act on",
    IcmpIgnored => "a redirect or source quench (RFC 5927, RFC 6633), or an echo request to a group",
    IcmpNoSocket => "an echo reply that nobody waits for",
    IcmpQueueFull => "ICMP for a socket whose receive queue is full",
    IcmpRateLimited => "an ICMP message not sent because of the rate limit",
    IcmpQuoteInvalid => "an ICMP error whose quoted packet matches no live flow, or that was proved wrong",
    UdpMalformed => "a UDP length that cannot be",
    UdpBadChecksum => "a wrong UDP checksum",
    UdpNoSocket => "UDP for a port that nobody holds",
    UdpQueueFull => "UDP for a socket whose receive queue is full",
    TcpMalformed => "a TCP data offset, length or port that cannot be",
    TcpBadChecksum => "a wrong TCP checksum",
    TcpBadFlags => "TCP flags that no segment has (SYN with FIN or RST, none at all)",
    TcpBadOptions => "malformed TCP options",
    TcpNoSocket => "TCP for a port where nobody listens",
    TcpSynQueueFull => "a SYN while the SYN queue was full",
    TcpAcceptQueueFull => "a connection while the accept queue was full",
    TcpTableFull => "a connection while the connection table was full",
    TcpPaws => "an old segment by its timestamp (RFC 7323, 5)",
    TcpOutOfWindow => "a segment outside of the receive window",
    TcpDuplicate => "a segment whose bytes were all received before",
    TcpBadAck => "an acknowledgment of what was never sent, or far too old",
    TcpOldDataAfterClose => "data for a connection whose program closed it",
    TcpReceiveBufferFull => "data beyond the receive buffer",
    TcpOutOfOrderFull => "out-of-order data beyond its bound",
    TcpUnacceptableRst => "an RST outside of the window (RFC 5961, 3)",
    PoolExhausted => "no free frame",
    TransmitQueueFull => "the transmit queue was full",
    HandOverFull => "the ring to the worker that owns the flow was full",
    NoRoute => "no route to the destination",
    DatagramRefused => "a datagram that a call had taken, and its socket refused later",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_count_by_their_number() {
        for (i, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
        }
    }
}
