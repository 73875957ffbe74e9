//! What the load consists of, apart from any socket: which request is due when,
//! what its bytes are, whether the answer is right, and how long it took.

use std::collections::VecDeque;
use std::net::SocketAddr;

use ringroad::telemetry::latency::{Latency, Report, TABLE};

use super::reply;

/// A prime, so that bytes that moved by any round number are found out.
const PATTERN: usize = 65_521;
/// The most that is written or checked at once.
pub const CHUNK: usize = 64 * 1024;
/// Requests in flight on one connection in an open loop.
const PIPELINE: usize = 64;
/// A datagram without an answer for so long is lost.
const DATAGRAM_TIMEOUT: u64 = 1_000_000_000;
/// A connection that owes an answer for so long is given up.
const STREAM_TIMEOUT: u64 = 5_000_000_000;

/// What requests are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// Bytes to an echo server over TCP.
    Tcp,
    /// Datagrams to an echo server over UDP.
    Udp,
    /// GET requests over HTTP/1.1, one at a time on a connection.
    Http,
}

/// The load that was asked for.
#[derive(Clone, Debug)]
pub struct Plan {
    pub protocol: Protocol,
    pub target: SocketAddr,
    /// What HTTP asks for.
    pub path: String,
    pub connections: usize,
    /// Bytes in a request (tcp, udp).
    pub size: usize,
    /// Requests per second over all connections; none: a closed loop.
    pub rate: Option<f64>,
    /// Each request has a connection of its own, which the server ends.
    pub one_shot: bool,
    pub warm_up_ns: u64,
    pub measure_ns: u64,
}

/// Why a request or a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Failure {
    Connect,
    Reset,
    Closed,
    Timeout,
    Lost,
    Wrong,
    Status,
    NotHttp,
}

impl Failure {
    const TEXT: [&str; 8] = [
        "could not connect",
        "connection reset or failed",
        "connection closed early",
        "no answer within 5 s",
        "datagram lost (no answer within 1 s)",
        "answer differs from the request",
        "HTTP status 400 or above",
        "answer is not HTTP",
    ];
}

/// What to do with a connection after its bytes were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Go on.
    Keep,
    /// The server ends it in good order: open another.
    Reopen,
}

/// A request that has no answer yet.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// When it was to be sent; latency counts from here.
    due: u64,
    /// When it was handed to the socket.
    sent: u64,
    /// Its number on this flow (UDP).
    number: u64,
}

/// One connection's part.
struct Flow {
    open: bool,
    waiting: VecDeque<Waiting>,
    /// Bytes of begun requests that the socket has not taken.
    unsent: usize,
    /// Places in the pattern of the next byte to write and to read.
    write_at: usize,
    read_at: usize,
    /// Bytes of the oldest answer that have come (TCP).
    partial: usize,
    /// Requests begun; in an open loop also the place in the schedule.
    begun: u64,
    /// When bytes last came.
    heard: u64,
    /// When this connection was begun, and whether it has had a request
    /// (one shot).
    since: u64,
    asked: bool,
    reader: reply::Reader,
}

/// The whole load.
pub struct Engine {
    plan: Plan,
    pattern: Vec<u8>,
    request: Vec<u8>,
    datagram: Vec<u8>,
    flows: Vec<Flow>,
    depth: usize,
    start: u64,
    measured_from: u64,
    end: u64,
    /// Requests of the schedule whose time has come (open loop).
    cursor: u64,
    latency: Latency,
    interval: Option<Latency>,
    bytes: u64,
    in_flight: usize,
    errors: [u64; Failure::TEXT.len()],
    unanswered: u64,
}

/// Bytes without a short period, the same in every run.
fn pattern() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes: Vec<u8> = (0..PATTERN)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect();
    // The ring unrolled, so that any chunk is one slice.
    let again: Vec<u8> = bytes.iter().copied().cycle().take(CHUNK).collect();
    bytes.extend(again);
    bytes
}

impl Engine {
    /// A load that has not started. `live` also counts for [`Engine::interval`].
    pub fn new(plan: Plan, live: bool) -> Self {
        let close = if plan.one_shot { "Connection: close\r\n" } else { "" };
        let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n{close}\r\n", plan.path, plan.target).into_bytes();
        let flows = (0..plan.connections).map(Flow::new).collect();
        let depth = match (plan.rate, plan.protocol) {
            (Some(_), Protocol::Tcp | Protocol::Udp) => PIPELINE,
            _ => 1,
        };
        Self {
            pattern: pattern(),
            request,
            datagram: vec![0; plan.size],
            flows,
            depth,
            start: u64::MAX,
            measured_from: u64::MAX,
            end: u64::MAX,
            cursor: 0,
            latency: Latency::new(),
            interval: live.then(Latency::new),
            bytes: 0,
            in_flight: 0,
            errors: [0; Failure::TEXT.len()],
            unanswered: 0,
            plan,
        }
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Begin: warm-up now, then the measured part.
    pub fn begin(&mut self, now: u64) {
        self.start = now;
        self.measured_from = now + self.plan.warm_up_ns;
        self.end = self.measured_from + self.plan.measure_ns;
    }

    pub fn begun(&self) -> bool {
        self.start != u64::MAX
    }

    /// When the last request may be sent.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Requests in flight on all connections.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// When request `k` of the schedule is due (open loop).
    fn due(&self, k: u64, rate: f64) -> u64 {
        self.start + (k as f64 * 1e9 / rate) as u64
    }

    /// The flow of the next request of the schedule whose time has come, if one has.
    pub fn next_due(&mut self, now: u64) -> Option<usize> {
        let rate = self.plan.rate?;
        let due = self.due(self.cursor, rate);
        if !self.begun() || due > now || due >= self.end {
            return None;
        }
        let flow = self.cursor % self.flows.len() as u64;
        self.cursor += 1;
        Some(flow as usize)
    }

    /// When [`Engine::next_due`] will next have something, if ever.
    pub fn next_due_at(&self) -> Option<u64> {
        let due = self.due(self.cursor, self.plan.rate?);
        (self.begun() && due < self.end).then_some(due)
    }

    /// The flow's connection is being opened.
    pub fn opening(&mut self, flow: usize, now: u64) {
        self.flows[flow].since = now;
    }

    /// The flow has a connection now.
    pub fn opened(&mut self, flow: usize, now: u64) {
        let Flow { begun, since, .. } = self.flows[flow];
        self.flows[flow] = Flow { open: true, begun, since, heard: now, ..Flow::new(flow) };
    }

    /// The flow's connection failed, and all that waited on it.
    pub fn failed(&mut self, flow: usize, why: Failure) {
        let f = &mut self.flows[flow];
        f.open = false;
        let lost = f.waiting.len();
        f.waiting.clear();
        f.unsent = 0;
        self.in_flight -= lost;
        self.errors[why as usize] += lost.max(1) as u64;
    }

    /// The flow's connection ended in good order.
    pub fn closed(&mut self, flow: usize) {
        let f = &mut self.flows[flow];
        f.open = false;
        f.unsent = 0;
        self.in_flight -= f.waiting.len();
        f.waiting.clear();
    }

    /// Begin what requests of the flow are due.
    pub fn pull(&mut self, flow: usize, now: u64) {
        if now >= self.end && self.plan.rate.is_none() || !self.begun() {
            return;
        }
        while self.flows[flow].open && self.flows[flow].waiting.len() < self.depth {
            let due = match self.plan.rate {
                None if self.plan.one_shot => {
                    if self.flows[flow].asked {
                        return;
                    }
                    self.flows[flow].asked = true;
                    // A connection that was there before the start counts from then.
                    self.flows[flow].since.max(self.start)
                }
                None => now,
                Some(rate) => {
                    let k = flow as u64 + self.flows[flow].begun * self.flows.len() as u64;
                    let due = self.due(k, rate);
                    if due > now || due >= self.end {
                        return;
                    }
                    due
                }
            };
            let length = if self.plan.protocol == Protocol::Http {
                self.request.len()
            } else {
                self.plan.size
            };
            let f = &mut self.flows[flow];
            f.waiting.push_back(Waiting { due, sent: now, number: f.begun });
            f.begun += 1;
            f.unsent += length;
            self.in_flight += 1;
        }
    }

    /// Bytes that the flow has to write now; UDP: one datagram.
    pub fn pending(&mut self, flow: usize) -> &[u8] {
        let f = &self.flows[flow];
        match self.plan.protocol {
            Protocol::Tcp => &self.pattern[f.write_at..][..f.unsent.min(CHUNK)],
            Protocol::Http => &self.request[self.request.len() - f.unsent..],
            Protocol::Udp => {
                let Some(ahead) = f.unsent.checked_div(self.plan.size).filter(|n| *n > 0) else {
                    return &[];
                };
                let number = f.begun - ahead as u64;
                fill_datagram(&self.pattern, &mut self.datagram, flow, number);
                &self.datagram
            }
        }
    }

    /// The socket took `n` bytes of what was pending.
    pub fn wrote(&mut self, flow: usize, n: usize) {
        let f = &mut self.flows[flow];
        f.unsent -= n;
        f.write_at = (f.write_at + n) % PATTERN;
    }

    /// Bytes came on the flow (UDP: one datagram).
    ///
    /// # Errors
    /// The answer is wrong; the connection is of no more use.
    pub fn received(&mut self, flow: usize, data: &[u8], now: u64) -> Result<Next, Failure> {
        if now >= self.measured_from && now < self.end {
            self.bytes += data.len() as u64;
        }
        self.flows[flow].heard = now;
        match self.plan.protocol {
            Protocol::Tcp => self.received_stream(flow, data, now),
            Protocol::Udp => self.received_datagram(flow, data, now),
            Protocol::Http => self.received_http(flow, data, now),
        }
    }

    fn received_stream(&mut self, flow: usize, mut data: &[u8], now: u64) -> Result<Next, Failure> {
        let f = &mut self.flows[flow];
        f.partial += data.len();
        while !data.is_empty() {
            let (part, rest) = data.split_at(data.len().min(CHUNK));
            if *part != self.pattern[f.read_at..][..part.len()] {
                return Err(Failure::Wrong);
            }
            f.read_at = (f.read_at + part.len()) % PATTERN;
            data = rest;
        }
        while self.flows[flow].partial >= self.plan.size {
            self.flows[flow].partial -= self.plan.size;
            let done = self.flows[flow].waiting.pop_front().ok_or(Failure::Wrong)?;
            self.answered(done.due, now);
        }
        Ok(Next::Keep)
    }

    fn received_datagram(&mut self, flow: usize, data: &[u8], now: u64) -> Result<Next, Failure> {
        let digits = data.len().min(8);
        let mask = if digits == 8 { u64::MAX } else { (1 << (8 * digits)) - 1 };
        let mut number = [0; 8];
        number[..digits].copy_from_slice(&data[..digits]);
        let number = u64::from_le_bytes(number);
        let waiting = &self.flows[flow].waiting;
        // Not among them: the late twin of one that was given up. No error, no answer.
        let Some(place) = waiting.iter().position(|w| w.number & mask == number) else {
            return Ok(Next::Keep);
        };
        let whole = waiting[place].number;
        fill_datagram(&self.pattern, &mut self.datagram, flow, whole);
        if data != &self.datagram[..] {
            self.errors[Failure::Wrong as usize] += 1;
            return Ok(Next::Keep);
        }
        if let Some(done) = self.flows[flow].waiting.remove(place) {
            self.answered(done.due, now);
        }
        Ok(Next::Keep)
    }

    fn received_http(&mut self, flow: usize, mut data: &[u8], now: u64) -> Result<Next, Failure> {
        while !data.is_empty() {
            let (n, done) = self.flows[flow].reader.take(data).map_err(|_| Failure::NotHttp)?;
            data = &data[n..];
            if let Some(done) = done
                && self.http_answered(flow, &done, now)? == Next::Reopen
            {
                return Ok(Next::Reopen);
            }
        }
        Ok(Next::Keep)
    }

    fn http_answered(
        &mut self,
        flow: usize,
        done: &reply::Finished,
        now: u64,
    ) -> Result<Next, Failure> {
        let waited = self.flows[flow].waiting.pop_front().ok_or(Failure::NotHttp)?;
        if done.status >= 400 {
            self.in_flight -= 1;
            self.errors[Failure::Status as usize] += 1;
        } else {
            self.answered(waited.due, now);
        }
        Ok(if done.closes { Next::Reopen } else { Next::Keep })
    }

    /// The other side ended the flow's connection.
    ///
    /// # Errors
    /// It did so before its answer was whole.
    pub fn ended(&mut self, flow: usize, now: u64) -> Result<Next, Failure> {
        match self.flows[flow].reader.end() {
            Some(done) => self.http_answered(flow, &done, now).map(|_| Next::Reopen),
            // An answer that is whole, and the end of the connection that was for it alone.
            None if self.flows[flow].waiting.is_empty()
                && (self.plan.protocol == Protocol::Http || self.plan.one_shot && self.flows[flow].asked) =>
            {
                Ok(Next::Reopen)
            }
            None => Err(Failure::Closed),
        }
    }

    fn answered(&mut self, due: u64, now: u64) {
        self.in_flight -= 1;
        let ns = now.saturating_sub(due);
        if due >= self.measured_from && due < self.end {
            self.latency.record(ns);
        }
        if let Some(interval) = &mut self.interval {
            interval.record(ns);
        }
    }

    /// Give up what has waited too long on the flow; an error ends its connection.
    pub fn check_time(&mut self, flow: usize, now: u64) -> Result<(), Failure> {
        let f = &mut self.flows[flow];
        let overdue = |w: &Waiting, limit| now.saturating_sub(w.sent) > limit;
        if self.plan.protocol == Protocol::Udp {
            while f.waiting.front().is_some_and(|w| overdue(w, DATAGRAM_TIMEOUT)) {
                f.waiting.pop_front();
                f.unsent = f.unsent.min(f.waiting.len() * self.plan.size);
                self.in_flight -= 1;
                self.errors[Failure::Lost as usize] += 1;
            }
            return Ok(());
        }
        let silent = now.saturating_sub(f.heard) > STREAM_TIMEOUT;
        if silent && f.waiting.front().is_some_and(|w| overdue(w, STREAM_TIMEOUT)) {
            return Err(Failure::Timeout);
        }
        Ok(())
    }

    /// Latencies since the last call with their count, when live.
    pub fn take_interval(&mut self) -> Option<Latency> {
        self.interval.as_mut().map(|i| std::mem::replace(i, Latency::new()))
    }

    /// Errors so far, of all kinds.
    pub fn error_count(&self) -> u64 {
        self.errors.iter().sum()
    }

    /// Count what has no answer; its wait so far is the least its latency can be.
    pub fn finish(&mut self, now: u64) {
        let (from, end, n) = (self.measured_from, self.end, self.flows.len() as u64);
        for flow in 0..self.flows.len() {
            let mut dues: Vec<u64> = self.flows[flow].waiting.drain(..).map(|w| w.due).collect();
            if let Some(rate) = self.plan.rate {
                let first = self.flows[flow].begun;
                let never = (first..)
                    .map(|i| self.due(flow as u64 + i * n, rate))
                    .take_while(|due| *due < end);
                dues.extend(never);
            }
            for due in dues.into_iter().filter(|due| (from..end).contains(due)) {
                self.unanswered += 1;
                self.latency.record(now.saturating_sub(due));
            }
        }
        self.in_flight = 0;
    }

    /// Everything that was found.
    pub fn report(&self, over: String) -> (Report, &Latency) {
        let seconds = self.plan.measure_ns as f64 / 1e9;
        let requests = self.latency.count() - self.unanswered;
        let errors = self.errors.iter().zip(Failure::TEXT).filter(|(n, _)| **n > 0);
        let report = Report {
            target: self.plan.target.to_string(),
            protocol: format!("{:?}", self.plan.protocol).to_lowercase(),
            over,
            connections: self.plan.connections,
            size: if self.plan.protocol == Protocol::Http { 0 } else { self.plan.size },
            rate: self.plan.rate,
            seconds,
            warm_up: self.plan.warm_up_ns as f64 / 1e9,
            requests,
            requests_per_second: requests as f64 / seconds,
            bytes_received: self.bytes,
            unanswered: self.unanswered,
            errors: errors.map(|(n, text)| (text.to_string(), *n)).collect(),
            percentiles: TABLE
                .iter()
                .map(|p| (*p, self.latency.percentile(*p).as_nanos()))
                .collect(),
            min_ns: self.latency.min().as_nanos(),
            mean_ns: self.latency.mean_ns(),
            histogram: self.latency.buckets(),
        };
        (report, &self.latency)
    }
}

impl Flow {
    fn new(index: usize) -> Self {
        // Each flow begins elsewhere, so that bytes of another flow are found out.
        let at = index * 7_919 % PATTERN;
        Self {
            open: false,
            waiting: VecDeque::new(),
            unsent: 0,
            write_at: at,
            read_at: at,
            partial: 0,
            begun: 0,
            heard: 0,
            since: 0,
            asked: false,
            reader: reply::Reader::new(),
        }
    }
}

/// A datagram: its number, then pattern that depends on flow and number.
fn fill_datagram(pattern: &[u8], datagram: &mut [u8], flow: usize, number: u64) {
    let digits = datagram.len().min(8);
    let (head, body) = datagram.split_at_mut(digits);
    head.copy_from_slice(&number.to_le_bytes()[..digits]);
    let at = ((flow as u64 * 7_919 + number * 31) % PATTERN as u64) as usize;
    body.copy_from_slice(&pattern[at..][..body.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(protocol: Protocol, rate: Option<f64>) -> Plan {
        Plan {
            protocol,
            target: "10.0.0.1:7".parse().unwrap(),
            path: "/".into(),
            connections: 2,
            size: 100,
            rate,
            one_shot: false,
            warm_up_ns: 1_000,
            measure_ns: 10_000,
        }
    }

    fn started(protocol: Protocol, rate: Option<f64>) -> Engine {
        let mut engine = Engine::new(plan(protocol, rate), false);
        engine.opened(0, 0);
        engine.opened(1, 0);
        engine.begin(0);
        engine
    }

    /// Write everything pending on the flow; the bytes.
    fn drain(engine: &mut Engine, flow: usize) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let bytes = engine.pending(flow).to_vec();
            if bytes.is_empty() {
                return out;
            }
            engine.wrote(flow, bytes.len());
            out.extend(bytes);
        }
    }

    #[test]
    fn a_closed_loop_has_one_request_under_way_and_measures_after_the_warm_up() {
        let mut engine = started(Protocol::Tcp, None);
        let mut now = 0;
        for _ in 0..100 {
            engine.pull(0, now);
            engine.pull(0, now);
            let bytes = drain(&mut engine, 0);
            assert!(bytes.len() == 100 || now >= 11_000);
            now += 150;
            let (first, second) = bytes.split_at(bytes.len() / 2);
            engine.received(0, first, now).unwrap();
            engine.received(0, second, now).unwrap();
        }
        let (report, latency) = engine.report("test".into());
        assert_eq!(report.requests, 67, "those due from 1,000 to 11,000 ns");
        assert_eq!(latency.percentile(50.0).as_nanos(), 150);
        assert_eq!(report.error_count(), 0);
        assert_eq!(engine.in_flight(), 0);
    }

    #[test]
    fn one_shot_asks_once_on_each_connection_and_counts_from_its_beginning() {
        for protocol in [Protocol::Tcp, Protocol::Http] {
            let mut engine = Engine::new(Plan { one_shot: true, ..plan(protocol, None) }, false);
            engine.opening(0, 0);
            engine.opened(0, 0);
            engine.begin(0);
            for round in 0..20 {
                let began = round * 1_000;
                engine.pull(0, began + 100);
                let mut answer = drain(&mut engine, 0);
                assert_eq!(!answer.is_empty(), began < 11_000, "no request after the end");
                if protocol == Protocol::Http && !answer.is_empty() {
                    assert!(String::from_utf8_lossy(&answer).contains("Connection: close"));
                    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
                }
                let next = engine.received(0, &answer, began + 300);
                engine.pull(0, began + 300);
                assert!(engine.pending(0).is_empty(), "the connection has had its request");
                if next == Ok(Next::Keep) && !answer.is_empty() {
                    assert_eq!(engine.ended(0, began + 400), Ok(Next::Reopen));
                }
                engine.closed(0);
                engine.opening(0, began + 1_000);
                engine.opened(0, began + 1_050);
            }
            let (report, latency) = engine.report("test".into());
            assert_eq!(report.requests, 10, "those begun from 1,000 to 11,000 ns");
            assert_eq!((latency.percentile(50.0).as_nanos(), report.error_count()), (300, 0));
        }
    }

    #[test]
    fn one_shot_wants_the_whole_answer_before_the_end() {
        let mut engine = Engine::new(Plan { one_shot: true, ..plan(Protocol::Tcp, None) }, false);
        engine.opened(0, 0);
        engine.begin(0);
        engine.pull(0, 0);
        let bytes = drain(&mut engine, 0);
        engine.received(0, &bytes[..50], 10).unwrap();
        assert_eq!(engine.ended(0, 20), Err(Failure::Closed));
    }

    #[test]
    fn wrong_and_unasked_bytes_are_found_out() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let mut engine = started(protocol, None);
            engine.pull(0, 0);
            let mut bytes = drain(&mut engine, 0);
            bytes[50] ^= 1;
            let outcome = engine.received(0, &bytes, 10);
            match protocol {
                Protocol::Tcp => assert_eq!(outcome, Err(Failure::Wrong)),
                _ => assert_eq!(engine.error_count(), 1, "the datagram may yet come whole"),
            }
        }
        let mut engine = started(Protocol::Tcp, None);
        engine.pull(0, 0);
        engine.pull(1, 0);
        let other = drain(&mut engine, 1);
        assert_eq!(
            engine.received(0, &other, 10),
            Err(Failure::Wrong),
            "bytes of another connection"
        );
        let mut engine = started(Protocol::Tcp, None);
        let unasked: Vec<u8> = engine.pattern[..100].to_vec();
        assert_eq!(engine.received(0, &unasked, 10), Err(Failure::Wrong));
    }

    #[test]
    fn an_open_loop_charges_a_stall_to_all_it_delayed() {
        // One request every 100 ns on each of two flows; nothing answers before 5,000 ns.
        let mut engine = started(Protocol::Http, Some(2e7));
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        for flow in 0..2 {
            engine.pull(flow, 5_000);
            drain(&mut engine, flow);
            for _ in 0..30 {
                engine.received(flow, answer, 5_000).unwrap();
                engine.pull(flow, 5_000);
                drain(&mut engine, flow);
            }
        }
        let (report, latency) = engine.report("test".into());
        assert_eq!(report.requests, 40, "due from 1,000 ns on; the first ten were warm-up");
        assert_eq!(latency.max().as_nanos() / 10, 400, "4 us for the first measured one");
        assert!(latency.min().as_nanos() < 2_100);
    }

    #[test]
    fn what_is_never_answered_still_counts() {
        let mut engine = started(Protocol::Tcp, Some(2e7));
        while let Some(flow) = engine.next_due(1_000_000) {
            engine.pull(flow, 1_000_000);
        }
        engine.finish(1_000_000);
        let (report, latency) = engine.report("test".into());
        assert_eq!(report.unanswered, 200, "all that were due after the warm-up");
        assert_eq!(report.requests, 0);
        assert!(latency.min().as_nanos() > 980_000);
        assert_eq!(engine.in_flight(), 0);
    }

    #[test]
    fn datagrams_are_told_apart_and_given_up() {
        let mut engine = started(Protocol::Udp, None);
        engine.pull(0, 0);
        let first = drain(&mut engine, 0);
        assert_eq!(first.len(), 100);
        engine.check_time(0, DATAGRAM_TIMEOUT + 1).unwrap();
        assert_eq!((engine.error_count(), engine.in_flight()), (1, 0));
        engine.end = u64::MAX - 1;
        engine.pull(0, DATAGRAM_TIMEOUT + 2);
        let second = drain(&mut engine, 0);
        assert_ne!(first, second);
        assert_eq!(
            engine.received(0, &first, DATAGRAM_TIMEOUT + 3),
            Ok(Next::Keep),
            "late, and ignored"
        );
        assert_eq!(engine.in_flight(), 1);
        engine.received(0, &second, DATAGRAM_TIMEOUT + 4).unwrap();
        assert_eq!((engine.error_count(), engine.in_flight()), (1, 0));
    }

    #[test]
    fn failures_count_each_request_that_waited() {
        let mut engine = started(Protocol::Tcp, Some(1e9));
        engine.pull(0, 500);
        assert_eq!(engine.in_flight(), PIPELINE);
        engine.failed(0, Failure::Reset);
        assert_eq!((engine.error_count(), engine.in_flight()), (PIPELINE as u64, 0));
        engine.opened(0, 600);
        engine.pull(0, 600);
        assert!(engine.in_flight() > 0, "and the flow goes on with its schedule");
    }
}
