//! Reading HTTP replies as a load generator must: where each ends, and its status.

/// The longest head of a reply that is read.
const HEAD_LIMIT: usize = 16 * 1024;

#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// Lines up to the empty one; kept in `line`.
    Head,
    /// This many bytes of body are missing.
    Body(u64),
    /// The body ends with the connection.
    ToTheEnd,
    /// The line with a chunk's size.
    ChunkSize,
    /// This many bytes of a chunk, its line end included, are missing.
    Chunk(u64),
    /// The lines after the last chunk.
    Trailer,
}

/// A finished reply.
#[derive(Debug, PartialEq, Eq)]
pub struct Finished {
    /// Its status, such as 200.
    pub status: u16,
    /// The server closes the connection after it.
    pub closes: bool,
}

/// The bytes are no HTTP reply.
#[derive(Debug, PartialEq, Eq)]
pub struct NotHttp;

/// Where in its replies one connection is.
#[derive(Debug)]
pub struct Reader {
    part: Part,
    line: Vec<u8>,
    status: u16,
    closes: bool,
}

impl Reader {
    /// At the beginning of a connection.
    pub fn new() -> Self {
        Self { part: Part::Head, line: Vec::new(), status: 0, closes: false }
    }

    /// Take from `data` up to the end of one reply: how much was taken, and the
    /// reply if it ended there.
    pub fn take(&mut self, data: &[u8]) -> Result<(usize, Option<Finished>), NotHttp> {
        let mut taken = 0;
        while taken < data.len() {
            let rest = &data[taken..];
            match self.part {
                Part::Head => {
                    taken += self.take_head(rest)?;
                    if self.part == Part::Body(0) {
                        return Ok((taken, Some(self.finish())));
                    }
                }
                Part::Body(missing) => {
                    let n = missing.min(rest.len() as u64);
                    taken += n as usize;
                    self.part = Part::Body(missing - n);
                    if missing == n {
                        return Ok((taken, Some(self.finish())));
                    }
                }
                Part::ToTheEnd => taken = data.len(),
                Part::ChunkSize => {
                    taken += self.take_line(rest, |reader, line| {
                        let digits = line.split(';').next().unwrap_or("").trim();
                        let size = u64::from_str_radix(digits, 16).map_err(|_| NotHttp)?;
                        let with_line_end = size.checked_add(2).ok_or(NotHttp)?;
                        reader.part =
                            if size == 0 { Part::Trailer } else { Part::Chunk(with_line_end) };
                        Ok(())
                    })?;
                }
                Part::Chunk(missing) => {
                    let n = missing.min(rest.len() as u64);
                    taken += n as usize;
                    self.part =
                        if missing == n { Part::ChunkSize } else { Part::Chunk(missing - n) };
                }
                Part::Trailer => {
                    taken += self.take_line(rest, |reader, line| {
                        if line.is_empty() {
                            reader.part = Part::Body(0);
                        }
                        Ok(())
                    })?;
                    if self.part == Part::Body(0) {
                        return Ok((taken, Some(self.finish())));
                    }
                }
            }
        }
        Ok((taken, None))
    }

    /// The connection has ended: the reply that ended with it, if any did.
    pub fn end(&mut self) -> Option<Finished> {
        (self.part == Part::ToTheEnd).then(|| self.finish())
    }

    fn finish(&mut self) -> Finished {
        let done =
            Finished { status: self.status, closes: self.closes || self.part == Part::ToTheEnd };
        self.part = Part::Head;
        done
    }

    fn take_line(
        &mut self,
        data: &[u8],
        done: impl FnOnce(&mut Self, &str) -> Result<(), NotHttp>,
    ) -> Result<usize, NotHttp> {
        let end = data.iter().position(|b| *b == b'\n');
        let n = end.map_or(data.len(), |i| i + 1);
        self.line.extend_from_slice(&data[..n]);
        if self.line.len() > HEAD_LIMIT {
            return Err(NotHttp);
        }
        if end.is_some() {
            let line = std::mem::take(&mut self.line);
            let text = std::str::from_utf8(&line).map_err(|_| NotHttp)?;
            done(self, text.trim_end_matches(['\r', '\n']))?;
        }
        Ok(n)
    }

    /// Take bytes of the head; at its end, work out how the body ends.
    fn take_head(&mut self, data: &[u8]) -> Result<usize, NotHttp> {
        let old = self.line.len();
        self.line.extend_from_slice(&data[..data.len().min(HEAD_LIMIT - old.min(HEAD_LIMIT))]);
        let from = old.saturating_sub(3);
        let Some(end) =
            self.line[from..].windows(4).position(|w| w == b"\r\n\r\n").map(|i| from + i + 4)
        else {
            return if self.line.len() >= HEAD_LIMIT { Err(NotHttp) } else { Ok(data.len()) };
        };
        let head = std::mem::take(&mut self.line);
        self.read_head(std::str::from_utf8(&head[..end]).map_err(|_| NotHttp)?)?;
        self.line = head;
        self.line.clear();
        Ok(end - old)
    }

    fn read_head(&mut self, head: &str) -> Result<(), NotHttp> {
        let mut lines = head.split("\r\n");
        let status = lines.next().ok_or(NotHttp)?;
        let (version, rest) = status.split_once(' ').ok_or(NotHttp)?;
        self.status = rest.get(..3).and_then(|s| s.parse().ok()).ok_or(NotHttp)?;
        self.closes = match version {
            "HTTP/1.1" => false,
            "HTTP/1.0" => true,
            _ => return Err(NotHttp),
        };
        let (mut length, mut chunked) = (None, false);
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.parse().map_err(|_| NotHttp)?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = value.eq_ignore_ascii_case("chunked");
            } else if name.eq_ignore_ascii_case("connection") {
                self.closes = value.eq_ignore_ascii_case("close")
                    || (self.closes && !value.eq_ignore_ascii_case("keep-alive"));
            }
        }
        self.part = match (chunked, length) {
            _ if matches!(self.status, 204 | 304) => Part::Body(0),
            (true, _) => Part::ChunkSize,
            (false, Some(n)) => Part::Body(n),
            (false, None) => Part::ToTheEnd,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feed `text` in pieces of `step` bytes; the finished replies.
    fn read(text: &str, step: usize) -> Result<Vec<Finished>, NotHttp> {
        let (mut reader, mut out) = (Reader::new(), Vec::new());
        for piece in text.as_bytes().chunks(step) {
            let mut at = 0;
            while at < piece.len() {
                let (n, done) = reader.take(&piece[at..])?;
                at += n;
                out.extend(done);
            }
        }
        out.extend(reader.end());
        Ok(out)
    }

    #[test]
    fn replies_cut_anywhere() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
                    HTTP/1.1 404 Not Found\r\ncontent-length:0\r\n\r\n\
                    HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nA: b\r\n\r\n\
                    HTTP/1.1 304 Not Modified\r\n\r\n\
                    HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx";
        for step in [1, 2, 3, 7, 64, 10_000] {
            let found = read(text, step).unwrap();
            let statuses: Vec<_> = found.iter().map(|f| f.status).collect();
            assert_eq!(statuses, [200, 404, 200, 304, 200], "in pieces of {step}");
            let closes: Vec<_> = found.iter().map(|f| f.closes).collect();
            assert_eq!(closes, [false, false, false, false, true]);
        }
    }

    #[test]
    fn a_body_without_length_ends_with_the_connection() {
        assert_eq!(
            read("HTTP/1.0 200 OK\r\n\r\nabc", 2).unwrap(),
            [Finished { status: 200, closes: true }]
        );
        let kept =
            read("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", 9)
                .unwrap();
        assert_eq!(kept, [Finished { status: 200, closes: false }]);
    }

    #[test]
    fn what_is_not_http_is_refused() {
        assert_eq!(read("SSH-2.0-OpenSSH\r\n\r\n", 99), Err(NotHttp));
        assert_eq!(read("HTTP/1.1 abc\r\n\r\n", 99), Err(NotHttp));
        assert_eq!(read(&"x".repeat(HEAD_LIMIT + 1), 1000), Err(NotHttp));
        assert_eq!(
            read("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 99),
            Err(NotHttp)
        );
    }
}
