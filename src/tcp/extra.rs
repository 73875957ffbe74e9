//! What only some connections need, in a box that is made when first needed.

use super::config::ConnOptions;
use super::connection::{Bits, Connection};
use super::path::Path;
use super::tune::Tuning;
use super::types::{Discover, Env};
use super::urgent::Urgent;
use super::user_timeout::UserTimeout;

/// The parts; see the files that use them.
#[derive(Debug, Default)]
pub(super) struct Extra {
    pub urgent: Urgent,
    pub path: Path,
    pub tuning: Tuning,
    pub user_timeout: UserTimeout,
    /// TCP_NODELAY under a cork lets out what was written up to here.
    pub pushed: Option<u32>,
}

impl Connection {
    /// The box, made where there is none.
    #[cold]
    pub(super) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// The options that few connections have.
    pub(super) fn set_rare(&mut self, options: &ConnOptions) {
        if options.window_clamp > 0 {
            self.extra().tuning.clamp = options.window_clamp;
            self.hot.rcv_buf = self.hot.rcv_buf.min(options.window_clamp);
        }
        if options.discover != Discover::Do {
            self.set_discover(options.discover);
        }
        if options.user_timeout_option {
            let _ = self.set_user_timeout_option(true);
        }
        if options.oob_inline {
            self.set_oob_inline(true);
        }
    }

    /// Something in the box may be over: sending takes the short way again where
    /// nothing in it has to be looked after.
    #[cold]
    pub(super) fn look_after(&mut self, env: &Env) {
        let ages = self.path_ages(env) || self.searches();
        let needed = ages || self.user_timeout_bytes().is_some() || self.urgent_out() || !self.template.has_df();
        self.hot.bits.set(Bits::CARE, needed);
    }
}
