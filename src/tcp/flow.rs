//! What a connection keeps that sends in bulk, paces, or speaks of congestion with
//! the path. It is made when it is first needed.

use super::connection::{Connection, Watch};
use super::ecn::Ecn;
use super::pacing::Pacing;
use super::rate::Rate;
use super::seq;

/// What is in the box.
#[derive(Debug, Default)]
pub(super) struct Flow {
    pub rate: Rate,
    pub pacing: Pacing,
    pub ecn: Ecn,
    /// The most that was under way in this round trip, and where the round ends.
    most: u32,
    round: u32,
}

impl Connection {
    /// The most that was under way at an ACK of this round trip, this one's
    /// `flight` counted, where SND.UNA was `una` before it: how well the window was
    /// used shows at a round's begin, not while its ACKs come in.
    pub(super) fn most_under_way(&mut self, una: u32, flight: u32) -> u32 {
        let end = self.hot.snd_nxt;
        let Some(flow) = &mut self.cold.flow else { return flight };
        if flow.most == 0 || seq::ge(una, flow.round) || flight > flow.most {
            (flow.most, flow.round) = (flight, end);
        }
        flow.most
    }

    /// The box, made if there is none.
    pub(super) fn flow(&mut self) -> &mut Flow {
        self.warm.watch |= Watch::FLOW;
        self.cold.flow.get_or_insert_with(Box::default)
    }
}
