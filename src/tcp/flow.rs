//! What a connection keeps that sends in bulk, paces, or speaks of congestion with
//! the path. It is made when it is first needed.

use super::connection::Connection;
use super::ecn::Ecn;
use super::pacing::Pacing;
use super::rate::Rate;

/// What is in the box.
#[derive(Debug, Default)]
pub(super) struct Flow {
    pub rate: Rate,
    pub pacing: Pacing,
    pub ecn: Ecn,
}

impl Connection {
    /// The box, made if there is none.
    pub(super) fn flow(&mut self) -> &mut Flow {
        self.cold.flow.get_or_insert_with(Box::default)
    }
}
