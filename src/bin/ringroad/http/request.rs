//! Reading an HTTP request's head (RFC 9112, RFC 9110).

/// The longest request line and header fields taken together.
pub const HEAD_LIMIT: usize = 16 * 1024;
/// The longest body that is read past before a connection is closed instead.
const BODY_LIMIT: u64 = 1024 * 1024;

/// What a request asks, as far as a file server cares.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    pub method: Method,
    /// Path of the target, still percent-encoded, without query.
    pub path: &'a str,
    /// The connection stays open after the answer.
    pub keep_alive: bool,
    /// The client speaks HTTP/1.0.
    pub old: bool,
    /// Bytes of body behind the head, to be read past.
    pub body: u64,
    pub range: Option<&'a str>,
    pub if_modified_since: Option<&'a str>,
}

/// Methods that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Other,
}

/// Why a head is refused: the status to answer with. The connection closes then,
/// for where the next request begins is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    BadRequest,
    TooLarge,
    BodyTooLarge,
    NotImplemented,
    Version,
}

/// The head at the beginning of `data`, and its length; none if it is not whole yet.
///
/// # Errors
/// It cannot be understood, or is too long.
pub fn parse(data: &[u8]) -> Result<Option<(Request<'_>, usize)>, Refused> {
    // Empty lines before a request are passed over (RFC 9112 section 2.2).
    let skipped = data.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    let Some(length) = head_length(&data[skipped..]) else {
        return if data.len() >= HEAD_LIMIT { Err(Refused::TooLarge) } else { Ok(None) };
    };
    if length > HEAD_LIMIT {
        return Err(Refused::TooLarge);
    }
    let head = std::str::from_utf8(&data[skipped..skipped + length]).map_err(|_| Refused::BadRequest)?;
    let mut lines = head.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let mut request = request_line(lines.next().unwrap_or(""))?;
    let mut hosts = 0;
    for line in lines.take_while(|line| !line.is_empty()) {
        field(&mut request, line, &mut hosts)?;
    }
    if hosts > 1 || (hosts == 0 && !request.old) {
        return Err(Refused::BadRequest);
    }
    Ok(Some((request, skipped + length)))
}

/// Length of the head with the empty line that ends it.
fn head_length(data: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = data[from..].iter().position(|b| *b == b'\n').map(|i| from + i) {
        match &data[at + 1..] {
            [b'\n', ..] => return Some(at + 2),
            [b'\r', b'\n', ..] => return Some(at + 3),
            _ => from = at + 1,
        }
    }
    None
}

fn request_line(line: &str) -> Result<Request<'_>, Refused> {
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refused::BadRequest);
    };
    let old = match version {
        "HTTP/1.1" => false,
        "HTTP/1.0" => true,
        v if v.starts_with("HTTP/") => return Err(Refused::Version),
        _ => return Err(Refused::BadRequest),
    };
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        m if !m.is_empty() && m.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-') => Method::Other,
        _ => return Err(Refused::BadRequest),
    };
    // A proxy's form of the target, http://host/path, is understood too (RFC 9112 section 3.2.2).
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    let path = path.split(['?', '#']).next().unwrap_or("");
    if !(path.starts_with('/') || method == Method::Other && path == "*") {
        return Err(Refused::BadRequest);
    }
    Ok(Request { method, path, keep_alive: !old, old, body: 0, range: None, if_modified_since: None })
}

fn field<'a>(request: &mut Request<'a>, line: &'a str, hosts: &mut u32) -> Result<(), Refused> {
    let (name, value) = line.split_once(':').ok_or(Refused::BadRequest)?;
    if name.is_empty() || name.contains([' ', '\t']) {
        return Err(Refused::BadRequest);
    }
    let value = value.trim_matches([' ', '\t']);
    let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
    if is("host") {
        *hosts += 1;
    } else if is("connection") {
        for option in value.split(',').map(str::trim) {
            if option.eq_ignore_ascii_case("close") {
                request.keep_alive = false;
            } else if option.eq_ignore_ascii_case("keep-alive") && request.old {
                request.keep_alive = true;
            }
        }
    } else if is("content-length") {
        if value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Refused::BadRequest);
        }
        request.body = value.parse().ok().filter(|n| *n <= BODY_LIMIT).ok_or(Refused::BodyTooLarge)?;
    } else if is("transfer-encoding") {
        return Err(Refused::NotImplemented);
    } else if is("range") {
        request.range = Some(value);
    } else if is("if-modified-since") {
        request.if_modified_since = Some(value);
    }
    Ok(())
}

/// The bytes `first..end` of `length` that a Range field asks for (RFC 9110 section
/// 14.2): `None` where it is to be ignored, an error where nothing of it exists.
pub fn range(field: &str, length: u64) -> Result<Option<(u64, u64)>, ()> {
    let Some((first, last)) = field.strip_prefix("bytes=").and_then(|r| r.split_once('-')) else { return Ok(None) };
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let (start, end) = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1).min(length)),
        (Some(first), None) if last.is_empty() => (first, length),
        (None, Some(suffix)) if first.is_empty() => (length.saturating_sub(suffix), length),
        // Several ranges, or what is no range: the whole file is a right answer.
        _ => return Ok(None),
    };
    if start < end { Ok(Some((start, end))) } else { Err(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(text: &str) -> Request<'_> {
        parse(text.as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn versions_and_keep_alive() {
        let r = ok("GET /a?x=y HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!((r.method, r.path, r.keep_alive), (Method::Get, "/a", true));
        assert!(!ok("GET / HTTP/1.1\r\nHost: h\r\nConnection: foo, Close\r\n\r\n").keep_alive);
        assert!(!ok("GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert!(ok("GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n").keep_alive);
        assert_eq!(ok("HEAD http://h/b HTTP/1.1\r\nhost:h\r\n\r\n").path, "/b");
        assert_eq!(ok("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n").method, Method::Other);
        assert_eq!(ok("\r\nGET / HTTP/1.0\n\n").path, "/", "bare line feeds and an empty line before");
    }

    #[test]
    fn pieces_are_waited_for() {
        let text = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
        for n in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..n]), Ok(None), "{n} bytes");
        }
        let two = format!("{text}GET /b HTTP/1.1\r\n");
        assert_eq!(parse(two.as_bytes()).unwrap().unwrap().1, text.len());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (text, why) in [
            ("GET / HTTP/1.1\r\n\r\n", Refused::BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Refused::BadRequest),
            ("GET /\r\n\r\n", Refused::BadRequest),
            ("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", Refused::BadRequest),
            ("GET a HTTP/1.0\r\n\r\n", Refused::BadRequest),
            ("GET / HTTP/2.0\r\n\r\n", Refused::Version),
            ("GET / HTTP/1.0\r\nA b: c\r\n\r\n", Refused::BadRequest),
            ("GET / HTTP/1.0\r\nnothing\r\n\r\n", Refused::BadRequest),
            ("GET / HTTP/1.0\r\nContent-Length: -1\r\n\r\n", Refused::BadRequest),
            ("GET / HTTP/1.0\r\nContent-Length: 99999999999\r\n\r\n", Refused::BodyTooLarge),
            ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", Refused::NotImplemented),
            ("\u{7f}\u{1} / HTTP/1.0\r\n\r\n", Refused::BadRequest),
        ] {
            assert_eq!(parse(text.as_bytes()), Err(why), "{text:?}");
        }
        let long = format!("GET /{} HTTP/1.0\r\n\r\n", "x".repeat(HEAD_LIMIT));
        assert_eq!(parse(long.as_bytes()), Err(Refused::TooLarge));
        assert_eq!(parse(&vec![b'G'; HEAD_LIMIT]), Err(Refused::TooLarge));
        assert_eq!(parse(b"GET /\xff HTTP/1.0\r\n\r\n"), Err(Refused::BadRequest));
    }

    #[test]
    fn ranges() {
        assert_eq!(range("bytes=0-9", 100), Ok(Some((0, 10))));
        assert_eq!(range("bytes=90-200", 100), Ok(Some((90, 100))));
        assert_eq!(range("bytes=90-", 100), Ok(Some((90, 100))));
        assert_eq!(range("bytes=-5", 100), Ok(Some((95, 100))));
        assert_eq!(range("bytes=-500", 100), Ok(Some((0, 100))));
        assert_eq!(range("bytes=100-", 100), Err(()));
        assert_eq!(range("bytes=-0", 100), Err(()));
        assert_eq!(range("bytes=0-0", 0), Err(()));
        for ignored in ["bytes=5-2", "bytes=0-1,4-5", "lines=1-2", "bytes=", "bytes=-", "bytes=+1-2"] {
            assert_eq!(range(ignored, 100), Ok(None), "{ignored}");
        }
    }
}
