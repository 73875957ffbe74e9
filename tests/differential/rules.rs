//! Where the two stacks differ, and why that is no mistake of ringroad's.

use crate::script::{Ack, Step};
use crate::{Case, Seen, State};
use ringroad::wire::tcp::Flags;

/// An explained difference.
pub struct Rule {
    pub name: &'static str,
    pub reason: &'static str,
    /// The stacks know different things from here on: the run ends.
    pub ends: bool,
    pub explains: fn(&Case) -> bool,
}

/// What the segment of the step is called.
fn is(case: &Case, what: &str) -> bool {
    matches!(case.step, Step::Segment { what: w, .. } if *w == what)
}

/// The two differ in nothing but what `set` makes the same.
fn but_for(case: &Case, set: impl Fn(&mut Seen, &Seen)) -> bool {
    let mut theirs = case.after[1].clone();
    set(&mut theirs, case.after[0]);
    theirs == *case.after[0]
}

/// Only whether there was an answer differs.
fn only_answered(case: &Case) -> bool {
    but_for(case, |t, o| t.answered = o.answered)
}

fn in_time_wait(case: &Case) -> bool {
    case.before[0].state == Some(State::TimeWait)
}

fn is_reset(case: &Case) -> bool {
    matches!(case.step, Step::Segment { flags, .. } if flags.contains(Flags::RST))
}

/// The segment acknowledges less than everything.
fn old_ack(case: &Case) -> bool {
    match case.step {
        Step::Segment { ack: Ack::Half, .. } => true,
        Step::Segment { ack: Ack::Off(by), .. } => *by < 0,
        _ => false,
    }
}

/// The peer's FIN came before.
fn peer_closed(case: &Case) -> bool {
    use State::*;
    let closed = [CloseWait, LastAck, Closing, TimeWait];
    case.before[0].state.is_some_and(|s| closed.contains(&s))
}

pub const RULES: &[Rule] = &[
    Rule {
        name: "a SYN that comes again gets its SYN-ACK again",
        reason: "RFC 9293, 3.10.7.4, first; RFC 5961, 4.2 leaves SYN-RECEIVED out; smoltcp waits for its timer",
        ends: false,
        explains: |c| is(c, "the SYN again") && only_answered(c),
    },
    Rule {
        name: "a SYN in a live connection is challenged",
        reason: "RFC 5961, 4.2; smoltcp drops it because it has no ACK",
        ends: false,
        explains: |c| is(c, "a SYN in the window") && only_answered(c) && c.after[0].answered,
    },
    Rule {
        name: "a reset counts at exactly the next number only",
        reason: "RFC 5961, 3.2; smoltcp believes one anywhere in the window",
        ends: true,
        explains: |c| {
            is(c, "a reset in the window")
                && c.before[0].state != Some(State::TimeWait)
                && c.after[0].state == c.before[0].state
                && c.after[0].answered
                && !c.after[1].answered
        },
    },
    Rule {
        name: "an old ACK does not make the text old",
        reason: "RFC 9293, 3.10.7.4, fifth, ignores the ACK alone; smoltcp drops the segment",
        ends: true,
        explains: |c| {
            old_ack(c)
                && c.after[1].delivered == c.before[1].delivered
                && c.after[1].acked == c.before[1].acked
                && c.after[1].state == c.before[1].state
        },
    },
    Rule {
        name: "there is no text after the FIN",
        reason: "RFC 9293, 3.10.7.4, seventh: it is ignored; smoltcp takes and acknowledges it",
        ends: true,
        explains: |c| {
            peer_closed(c)
                && matches!(c.step, Step::Segment { len, .. } if *len > 0)
                && c.after[0].acked == c.before[0].acked
        },
    },
    Rule {
        name: "a SYN-ACK in SYN-RECEIVED counts as the ACK that it carries",
        reason: "RFC 9293, figure 8 and MUST-10; smoltcp finds it outside of the window and waits for a plain ACK",
        ends: true,
        explains: |c| {
            is(c, "and its SYN-ACK")
                && c.after[0].state == Some(State::Established)
                && c.after[1].state == Some(State::Opening)
        },
    },
    Rule {
        name: "the sequence number is looked at before the acknowledgment",
        reason: "RFC 9293, 3.10.7.4, first: an ACK tells where we are; smoltcp resets for the acknowledgment alone",
        ends: true,
        explains: |c| {
            is(c, "an ACK far ahead")
                && c.before[0].state == Some(State::Opening)
                && c.after[0].reset.is_none()
                && c.after[1].reset.is_some()
        },
    },
    Rule {
        name: "the ACK of a probe from before the window counts",
        reason: "two full ends would else never hear each other (MUST-66 in both at once); \
                 RFC 9293, 3.10.7.4, first, answers alone, and so smoltcp",
        ends: true,
        explains: |c| {
            use State::*;
            let closing = [(FinWait1, FinWait2), (Closing, TimeWait), (LastAck, Closed)];
            let ours = (c.before[0].state, c.after[0].state);
            is(c, "a keepalive probe")
                && closing.iter().any(|&(from, to)| ours == (Some(from), Some(to)))
                && but_for(c, |t, o| (t.state, t.answered) = (o.state, o.answered))
        },
    },
    Rule {
        name: "a FIN before data that came is none",
        reason: "the peer contradicts itself; smoltcp moves the FIN behind the data (its number is lost)",
        ends: true,
        explains: |c| {
            is(c, "FIN")
                && c.gap
                && c.after[0].acked > c.before[0].acked
                && c.after[1].acked == c.after[0].acked + 1
        },
    },
    Rule {
        name: "an older segment says nothing about the window",
        reason: "RFC 9293, 3.10.7.4, fifth: SND.WL1; smoltcp believes the segment that comes last",
        ends: true,
        explains: |c| c.gap && (c.window == 0 || is(c, "a window that turns")) && but_for(c, |t, o| (t.sent, t.answered) = (o.sent, o.answered)),
    },
    Rule {
        name: "a probe of a shut window goes by each stack's own clock",
        reason: "RFC 9293, 3.8.6.1 (SHLD-29): after an RTO, which each measures",
        ends: true,
        explains: |c| {
            let probed = |n: usize| c.after[n].sent - c.before[n].sent;
            c.window == 0 && probed(0) <= 1 && probed(1) <= 1 && but_for(c, |t, o| t.sent = o.sent)
        },
    },
    Rule {
        name: "what is out of place in SYN-RECEIVED is answered once a second, by each in its own time",
        reason: "RFC 5961, 5 and 7: the answers are limited (ringroad exempts what has text or a FIN)",
        ends: false,
        explains: |c| c.before[0].state == Some(State::Opening) && only_answered(c),
    },
    Rule {
        name: "a reset has the number that a peer with a shut window expects",
        reason: "RFC 5961, 3.2 takes no other; the FIN or probe beyond the window was refused",
        ends: true,
        explains: |c| {
            let both = c.after[0].reset.is_some() && c.after[1].reset.is_some();
            c.window == 0 && both && but_for(c, |t, o| t.reset = o.reset)
        },
    },
    Rule {
        name: "an abort in TIME-WAIT is silent",
        reason: "RFC 9293, 3.10.5: the peer has closed and knows it; smoltcp sends an RST",
        ends: true,
        explains: |c| in_time_wait(c) && matches!(c.step, Step::Abort) && c.after[0].reset.is_none(),
    },
    Rule {
        name: "TIME-WAIT lasts 2 MSL",
        reason: "RFC 9293, MUST-13: a minute here; smoltcp takes ten seconds",
        ends: true,
        explains: |c| {
            in_time_wait(c)
                && c.after[1].state == Some(State::Closed)
                && but_for(c, |t, o| t.state = o.state)
                && !is_reset(c)
        },
    },
    Rule {
        name: "TIME-WAIT is not ended by a reset",
        reason: "RFC 1337, 3; smoltcp closes",
        ends: true,
        explains: |c| in_time_wait(c) && is_reset(c) && c.after[0].state == c.before[0].state,
    },
    Rule {
        name: "a SYN in SYN-RECEIVED ends it, and the listener is free again",
        reason: "RFC 9293, 3.10.7.4, fourth; smoltcp drops a SYN without ACK",
        ends: true,
        explains: |c| {
            let opening = c.before[0].state == Some(State::Opening);
            opening && is(c, "a SYN in the window") && !c.after[1].answered
        },
    },
    Rule {
        name: "TIME-WAIT is ended by a SYN",
        reason: "RFC 9293, MAY-2, and RFC 6191: the listener takes it; smoltcp drops it",
        ends: true,
        explains: |c| {
            let new = c.after[0].acked > c.before[0].acked;
            in_time_wait(c) && is(c, "a SYN in the window") && new && c.after[0].answered
        },
    },
    Rule {
        name: "TIME-WAIT keeps silent where only the acknowledgment is wrong",
        reason: "RFC 9293, 3.10.7.4, fifth: nothing but the FIN can come that matters; smoltcp answers",
        ends: false,
        explains: |c| in_time_wait(c) && is(c, "an ACK far ahead") && only_answered(c),
    },
    Rule {
        name: "the congestion window holds the sender back",
        reason: "RFC 5681, 3.1: one segment after a time-out; smoltcp is built without congestion control",
        ends: false,
        explains: |c| c.after[0].sent < c.after[1].sent && but_for(c, |t, o| t.sent = o.sent),
    },
    Rule {
        name: "what the congestion window held back goes later",
        reason: "RFC 5681, 3.1; in smoltcp it had left, and its FIN too",
        ends: true,
        explains: |c| {
            c.before[0].sent < c.before[1].sent
                && but_for(c, |t, o| (t.answered, t.state, t.sent) = (o.answered, o.state, o.sent))
        },
    },
];
