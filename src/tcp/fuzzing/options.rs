//! Options: whatever the bytes, what is read is written and read again the same.

use super::Choices;
use crate::tcp::sack;
use crate::wire::tcp::{Options, Order, SackBlock, parse_options};

/// Bytes as options, and options from choices.
pub fn tcp_options(bytes: &[u8]) {
    if let Ok(options) = parse_options(&bytes[..bytes.len().min(40)]) {
        round_trip(&options);
    }
    let mut choices = Choices::new(bytes);
    let mut options = Options {
        mss: choices.one_in(2).then(|| choices.short()),
        window_scale: choices.one_in(2).then(|| choices.byte()),
        sack_permitted: choices.one_in(2),
        timestamp: choices.one_in(2).then(|| (choices.word(), choices.word())),
        user_timeout: choices.one_in(4).then(|| choices.short()),
        ..Options::default()
    };
    for _ in 0..choices.below(5) {
        let _ = options.sack.try_push(SackBlock { left: choices.word(), right: choices.word() });
    }
    round_trip(&options);
    // The short way of writing blocks, as ACKs have it.
    let mut short = sack::Bytes::new();
    sack::write(&mut short, &options.sack);
    let read = parse_options(&short).expect("what we write can be read");
    assert_eq!(read.sack, options.sack);
}

/// Written in either order, the same options are read, but for the SACK blocks
/// that do not fit, the last of which are left out.
fn round_trip(options: &Options) {
    for order in [Order::Linux, Order::FreeBsd] {
        let written = options.encode(order);
        assert!(written.len() <= 40 && written.len().is_multiple_of(4));
        let read = parse_options(&written).expect("what we write can be read");
        assert!(options.sack.starts_with(&read.sack));
        let room = 40 - written.len();
        assert!(read.sack.len() == options.sack.len() || room < 8 || read.sack.is_empty());
        // So is the user timeout, which a cookie may leave no room.
        let user_timeout = options.user_timeout.filter(|_| read.user_timeout.is_some() || room >= 4);
        let expected = Options { sack: read.sack.clone(), user_timeout, ..options.clone() };
        assert_eq!(read, expected);
    }
}
