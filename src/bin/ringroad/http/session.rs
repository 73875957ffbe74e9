//! One client's connection to the HTTP server, apart from its socket: bytes in,
//! bytes out. Answers leave in the order of their requests (pipelining).

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use super::request::{self, HEAD_LIMIT, Method, Refused, Request};
use super::site::{Content, Found, Lookup, Site};

/// Bytes of a file that are read at once; with as much again, all that a
/// connection may have waiting to leave.
const CHUNK: usize = 64 * 1024;

/// A file that is being sent.
struct Streaming {
    file: Rc<File>,
    at: u64,
    end: u64,
}

/// The state of a connection.
#[derive(Default)]
pub struct Session {
    input: Vec<u8>,
    /// Bytes of a request's body still to be read past.
    skip: u64,
    output: Vec<u8>,
    sent: usize,
    streaming: Option<Streaming>,
    /// The client has sent all that it will.
    ended: bool,
    /// No further request is answered.
    closing: bool,
    /// Bytes promised in a Content-Length cannot be had any more.
    broken: bool,
}

impl Session {
    /// Bytes came from the client.
    pub fn feed(&mut self, mut data: &[u8]) {
        if self.closing {
            return;
        }
        let skipped = self.skip.min(data.len() as u64) as usize;
        self.skip -= skipped as u64;
        data = &data[skipped..];
        self.input.extend_from_slice(data);
    }

    /// More bytes may be fed: requests already here do not wait in great number.
    pub fn hungry(&self) -> bool {
        !self.closing && !self.ended && self.input.len() < HEAD_LIMIT
    }

    /// The client will send no more; what it asked before is still answered.
    pub fn ended(&mut self) {
        self.ended = true;
    }

    /// Answer no further request (the server stops).
    pub fn close_after_this(&mut self) {
        self.closing = true;
    }

    /// All is said, and the connection is to be closed.
    pub fn finished(&self) -> bool {
        self.closing && self.streaming.is_none() && self.pending().is_empty()
    }

    /// The connection is of no use: it must be reset, for its answer cannot be completed.
    pub fn broken(&self) -> bool {
        self.broken
    }

    /// Nothing is under way.
    pub fn idle(&self) -> bool {
        self.streaming.is_none() && self.pending().is_empty() && self.input.is_empty()
    }

    /// Bytes that wait to be sent.
    pub fn pending(&self) -> &[u8] {
        &self.output[self.sent..]
    }

    /// `n` of the pending bytes were sent.
    pub fn consumed(&mut self, n: usize) {
        self.sent += n;
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        }
    }

    /// Turn requests and files into pending bytes, up to a bound. `now` is in nanoseconds.
    pub fn produce(&mut self, site: &mut Site, now: u64) {
        // What was sent makes room, but not at the price of moving bytes each time.
        if self.sent >= CHUNK {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        let mut taken = 0;
        while self.output.len() - self.sent < CHUNK {
            if self.streaming.is_some() {
                self.read_on();
                continue;
            }
            if self.closing || self.skip > 0 || taken == self.input.len() {
                self.closing |= self.ended;
                break;
            }
            let input = std::mem::take(&mut self.input);
            let used = match request::parse(&input[taken..]) {
                Ok(Some((request, length))) => {
                    self.answer(&request, site, now);
                    let body = request.body.min((input.len() - taken - length) as u64);
                    self.skip = request.body - body;
                    length + body as usize
                }
                Ok(None) => 0,
                Err(why) => {
                    self.refuse(why, site, now);
                    0
                }
            };
            self.input = input;
            taken += used;
            if used == 0 {
                self.closing |= self.ended;
                break;
            }
        }
        self.input.drain(..taken);
    }

    fn read_on(&mut self) {
        let Some(streaming) = &mut self.streaming else { return };
        let wanted = (streaming.end - streaming.at).min(CHUNK as u64) as usize;
        let old = self.output.len();
        self.output.resize(old + wanted, 0);
        let got = streaming.file.read_at(&mut self.output[old..], streaming.at).unwrap_or(0);
        self.output.truncate(old + got);
        streaming.at += got as u64;
        if got == 0 && wanted > 0 {
            // The file shrank, or the disk failed, after its length was promised.
            self.broken = true;
            self.closing = true;
        }
        if got == 0 || streaming.at == streaming.end {
            self.streaming = None;
        }
    }

    fn answer(&mut self, request: &Request<'_>, site: &mut Site, now: u64) {
        self.closing |= !request.keep_alive;
        if request.method == Method::Other {
            return self.say(405, "Allow: GET, HEAD\r\n", true, request.old, site, now);
        }
        let head_only = request.method == Method::Head;
        match site.find(request.path, now) {
            Lookup::Found(found) => self.send_file(request, &found, site, now),
            Lookup::Moved(to) => {
                let location = format!("Location: {to}\r\n");
                self.say(301, &location, !head_only, request.old, site, now);
            }
            Lookup::Missing => self.say(404, "", !head_only, request.old, site, now),
            Lookup::Forbidden => self.say(403, "", !head_only, request.old, site, now),
        }
    }

    fn refuse(&mut self, why: Refused, site: &mut Site, now: u64) {
        self.closing = true;
        let status = match why {
            Refused::BadRequest => 400,
            Refused::TooLarge => 431,
            Refused::BodyTooLarge => 413,
            Refused::NotImplemented => 501,
            Refused::Version => 505,
        };
        self.say(status, "", true, false, site, now);
    }

    /// A short answer in words.
    fn say(&mut self, status: u16, fields: &str, body: bool, old: bool, site: &mut Site, now: u64) {
        let words = format!("{status} {}\n", reason(status));
        self.head(status, "text/plain; charset=utf-8", words.len() as u64, fields, old, site, now);
        if body {
            self.output.extend_from_slice(words.as_bytes());
        }
    }

    fn send_file(&mut self, request: &Request<'_>, found: &Found, site: &mut Site, now: u64) {
        let validators = format!("Last-Modified: {}\r\nAccept-Ranges: bytes\r\n", found.modified);
        if request.if_modified_since == Some(&*found.modified) {
            return self.head(304, found.kind, found.length, &validators, request.old, site, now);
        }
        let (start, end) = match request.range.map(|r| request::range(r, found.length)) {
            Some(Err(())) => {
                let fields = format!("Content-Range: bytes */{}\r\n", found.length);
                return self.say(416, &fields, request.method == Method::Get, request.old, site, now);
            }
            Some(Ok(Some((start, end)))) => {
                let fields = format!("{validators}Content-Range: bytes {start}-{}/{}\r\n", end - 1, found.length);
                self.head(206, found.kind, end - start, &fields, request.old, site, now);
                (start, end)
            }
            _ => {
                self.head(200, found.kind, found.length, &validators, request.old, site, now);
                (0, found.length)
            }
        };
        if request.method == Method::Head {
            return;
        }
        match &found.content {
            Content::Memory(bytes) => self.output.extend_from_slice(&bytes[start as usize..end as usize]),
            Content::Disk(file) if start < end => {
                self.streaming = Some(Streaming { file: file.clone(), at: start, end });
            }
            Content::Disk(_) => {}
        }
    }

    #[allow(clippy::too_many_arguments)] // the parts of a head
    fn head(&mut self, status: u16, kind: &str, length: u64, fields: &str, old: bool, site: &mut Site, now: u64) {
        let connection = match (self.closing, old) {
            (true, _) => "Connection: close\r\n",
            (false, true) => "Connection: keep-alive\r\n",
            (false, false) => "",
        };
        let date = site.date(now);
        // Writing to a vector cannot fail.
        let _ = write!(
            self.output,
            "HTTP/1.1 {status} {}\r\nServer: ringroad\r\nDate: {date}\r\nContent-Type: {kind}\r\n\
             Content-Length: {length}\r\n{fields}{connection}\r\n",
            reason(status)
        );
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        416 => "Range Not Satisfiable",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    struct Fixture {
        dir: PathBuf,
        site: Site,
    }

    impl Fixture {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("ringroad-session-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("a.txt"), "0123456789").unwrap();
            let big: Vec<u8> = (0..1_000_000u32).map(|i| (i * 7 / 3) as u8).collect();
            fs::write(dir.join("big"), big).unwrap();
            let site = Site::new(&dir).unwrap();
            Self { dir, site }
        }

        /// All that the session says to `input`, fed in pieces of `step`; whether it closes.
        fn talk(&mut self, input: &str, step: usize) -> (Vec<u8>, bool) {
            let (mut session, mut out) = (Session::default(), Vec::new());
            for piece in input.as_bytes().chunks(step) {
                session.feed(piece);
                loop {
                    session.produce(&mut self.site, 1);
                    let pending = session.pending();
                    assert!(pending.len() <= 3 * CHUNK, "bounded");
                    if pending.is_empty() {
                        break;
                    }
                    let n = pending.len().min(1_000);
                    out.extend_from_slice(&pending[..n]);
                    session.consumed(n);
                }
            }
            (out, session.finished())
        }

        fn text(&mut self, input: &str) -> (String, bool) {
            let (out, closed) = self.talk(input, usize::MAX);
            (String::from_utf8(out).unwrap(), closed)
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }

    #[test]
    fn pipelined_requests_are_answered_in_order_however_they_are_cut() {
        let mut fixture = Fixture::new("pipeline");
        let input = "GET /a.txt HTTP/1.1\r\nHost: h\r\n\r\nHEAD /a.txt HTTP/1.1\r\nHost: h\r\n\r\n\
                     POST /a.txt HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nxyz\
                     GET /none HTTP/1.1\r\nHost: h\r\n\r\nGET /a.txt HTTP/1.0\r\n\r\nGET /never HTTP/1.0\r\n\r\n";
        let mut whole = None;
        for step in [1, 7, usize::MAX] {
            let (out, closed) = fixture.talk(input, step);
            let text = String::from_utf8(out).unwrap();
            let statuses: Vec<_> = text.match_indices("HTTP/1.1 ").map(|(i, _)| &text[i + 9..i + 12]).collect();
            assert_eq!(statuses, ["200", "200", "405", "404", "200"]);
            assert_eq!(text.matches("0123456789").count(), 2, "HEAD has no body");
            assert!(closed, "HTTP/1.0 without keep-alive closes");
            let strip = |t: &str| t.lines().filter(|l| !l.starts_with("Date")).collect::<String>();
            assert_eq!(*whole.get_or_insert(strip(&text)), strip(&text));
        }
    }

    #[test]
    fn big_files_stream_whole() {
        let mut fixture = Fixture::new("stream");
        let (out, closed) = fixture.talk("GET /big HTTP/1.1\r\nHost: h\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: h\r\n\r\n", 9);
        assert!(!closed);
        let body = out.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        assert!(out[body..].starts_with(&fs::read(fixture.dir.join("big")).unwrap()));
        assert!(out.ends_with(b"0123456789"));
    }

    #[test]
    fn ranges_and_conditions() {
        let mut fixture = Fixture::new("range");
        let (text, _) = fixture.text("GET /a.txt HTTP/1.1\r\nHost: h\r\nRange: bytes=2-4\r\n\r\n");
        assert!(text.contains("206 Partial") && text.contains("Content-Range: bytes 2-4/10") && text.ends_with("\r\n\r\n234"));
        let (text, _) = fixture.text("GET /a.txt HTTP/1.1\r\nHost: h\r\nRange: bytes=10-\r\n\r\n");
        assert!(text.contains(" 416 ") && text.contains("bytes */10"));
        let (text, _) = fixture.text("GET /a.txt HTTP/1.1\r\nHost: h\r\n\r\n");
        let modified = text.lines().find_map(|l| l.strip_prefix("Last-Modified: ")).unwrap().to_string();
        let (text, _) = fixture.text(&format!("GET /a.txt HTTP/1.1\r\nHost: h\r\nIf-Modified-Since: {modified}\r\n\r\n"));
        assert!(text.starts_with("HTTP/1.1 304") && text.ends_with("\r\n\r\n"));
    }

    #[test]
    fn bad_requests_get_an_answer_and_an_end() {
        let mut fixture = Fixture::new("bad");
        for (input, status) in [
            ("nonsense\r\n\r\n", "400"),
            ("GET / HTTP/3.0\r\n\r\n", "505"),
            ("PUT /a.txt HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", "501"),
        ] {
            let (text, closed) = fixture.text(input);
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")) && closed, "{text}");
            assert!(text.contains("Connection: close"));
        }
        let (text, _) = fixture.text("GET /../x HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(text.starts_with("HTTP/1.1 403"));
    }

    #[test]
    fn a_client_that_ends_its_side_still_gets_its_answers() {
        let mut fixture = Fixture::new("ended");
        let mut session = Session::default();
        session.feed("GET /a.txt HTTP/1.1\r\nHost: h\r\n\r\n".repeat(2).as_bytes());
        session.feed(b"GET /a.t");
        session.ended();
        assert!(!session.finished());
        session.produce(&mut fixture.site, 1);
        let text = String::from_utf8(session.pending().to_vec()).unwrap();
        assert_eq!(text.matches("0123456789").count(), 2);
        session.consumed(text.len());
        session.produce(&mut fixture.site, 1);
        assert!(session.finished());
    }

    #[test]
    fn a_file_that_shrinks_breaks_the_connection() {
        let mut fixture = Fixture::new("shrink");
        let mut session = Session::default();
        session.feed(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n");
        session.produce(&mut fixture.site, 1);
        fs::write(fixture.dir.join("big"), "short").unwrap();
        while !session.pending().is_empty() {
            let n = session.pending().len();
            session.consumed(n);
            session.produce(&mut fixture.site, 1);
        }
        assert!(session.broken());
    }
}
