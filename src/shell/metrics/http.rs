//! HTTP as far as the metrics server speaks it (RFC 9110, RFC 9112): one request a connection, without a body.

use std::fmt;
use std::io::Write;

use httparse::{EMPTY_HEADER, Error};

use crate::host::log_format::HttpDate;
use crate::host::process::time_of_day;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Metrics,
    /// Whether the loop turns.
    Health,
    /// Whether the program serves; and, if that is asked, whether an upstream is usable.
    Ready {
        with_upstream: bool,
    },
}

/// A request that can be answered with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) page: Page,
    /// The method is HEAD: the response has no content.
    pub(super) is_head: bool,
}

/// A request that cannot be answered with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: Status,
    pub(super) is_head: bool,
}

/// The status of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    Timeout,
    UriTooLong,
    HeaderTooLarge,
    Unavailable,
    VersionNotSupported,
}

impl Status {
    /// The code and its words, which are the content as well.
    pub(super) fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::Timeout => "408 Request Timeout",
            Self::UriTooLong => "414 URI Too Long",
            Self::HeaderTooLarge => "431 Request Header Fields Too Large",
            Self::Unavailable => "503 Service Unavailable",
            Self::VersionNotSupported => "505 HTTP Version Not Supported",
        }
    }
}

/// Reads a request; `None` while it is not whole. `is_full`: no more of it will be read.
pub(super) fn parse(octets: &[u8], is_full: bool) -> Option<Result<Request, Refusal>> {
    let refusal = |status| Some(Err(Refusal { status, is_head: octets.starts_with(b"HEAD ") }));
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(octets) {
        Ok(status) if status.is_complete() => {}
        Ok(_) if !is_full => return None,
        // The request line has no end, or the fields have none.
        Ok(_) if !octets.contains(&b'\n') => return refusal(Status::UriTooLong),
        Ok(_) | Err(Error::TooManyHeaders) => return refusal(Status::HeaderTooLarge),
        Err(Error::Version) => return refusal(Status::VersionNotSupported),
        Err(_) => return refusal(Status::BadRequest),
    }
    let hosts =
        request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("host")).count();
    // RFC 9112 section 3.2.
    if hosts > 1 || hosts == 0 && request.version == Some(1) {
        return refusal(Status::BadRequest);
    }
    let Some(page) = request.path.and_then(page) else { return refusal(Status::NotFound) };
    match request.method {
        Some("GET") => Some(Ok(Request { page, is_head: false })),
        Some("HEAD") => Some(Ok(Request { page, is_head: true })),
        _ => refusal(Status::MethodNotAllowed),
    }
}

/// The page of a target: a path, which may have a scheme and an authority in front (RFC 9112 section 3.2.2).
fn page(target: &str) -> Option<Page> {
    let path = match target.split_once("://") {
        Some(("http", rest)) => &rest[rest.find('/')?..],
        _ => target,
    };
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    match path {
        "/metrics" => Some(Page::Metrics),
        "/healthz" => Some(Page::Health),
        "/readyz" => {
            let with_upstream = query.split('&').any(|field| field == "upstream=1");
            Some(Page::Ready { with_upstream })
        }
        _ => None,
    }
}

/// A response, in one piece of memory, and what of it did not leave yet.
#[derive(Debug, Default)]
pub(super) struct Response {
    octets: Vec<u8>,
    left: usize,
}

impl Response {
    /// A response to which content of at most so many octets is to be appended.
    pub(super) fn with_room(content_max: usize) -> Self {
        let mut octets = Vec::with_capacity(HEAD_MAX + content_max);
        octets.resize(HEAD_MAX, 0);
        Self { octets, left: HEAD_MAX }
    }

    /// Writes what is in front of the content, which has its length; the content is left out for HEAD, but not its
    /// length (RFC 9110 section 8.6).
    pub(super) fn finish(&mut self, status: Status, content_type: &str, is_head: bool) {
        let allow = if status == Status::MethodNotAllowed { "Allow: GET, HEAD\r\n" } else { "" };
        let len = self.octets.len() - HEAD_MAX;
        let mut head = [0; HEAD_MAX];
        let mut room = &mut head[..];
        let written = write!(
            room,
            "HTTP/1.1 {}\r\nDate: {}\r\n{allow}Content-Type: {content_type}\r\nContent-Length: {len}\r\n\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n",
            status.line(),
            HttpDate(time_of_day())
        );
        debug_assert!(written.is_ok(), "{status:?} {content_type} {len}");
        self.left = room.len();
        let head_len = HEAD_MAX - self.left;
        self.octets[self.left..HEAD_MAX].copy_from_slice(&head[..head_len]);
        if is_head {
            self.octets.truncate(HEAD_MAX);
        }
    }

    /// What did not leave yet.
    pub(super) fn rest(&self) -> &[u8] {
        &self.octets[self.left..]
    }

    /// So many octets left.
    pub(super) fn note_sent(&mut self, len: usize) {
        self.left += len;
    }

    /// Octets of the content.
    pub(super) fn content_len(&self) -> usize {
        self.octets.len() - HEAD_MAX
    }
}

/// Appends to the content. It does not fail.
impl fmt::Write for Response {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.octets.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// The media type of plain words.
pub(super) const PLAIN: &str = "text/plain; charset=utf-8";

/// The media type of metrics.
pub(super) const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Octets of what is in front of the content, at most.
pub(super) const HEAD_MAX: usize = 256;

/// Fields of a request. Browsers send some 20.
const HEADERS_MAX: usize = 48;

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    fn parsed(text: &str) -> Option<Result<Request, Status>> {
        parse(text.as_bytes(), false).map(|result| result.map_err(|refusal| refusal.status))
    }

    #[test]
    fn pages_have_their_paths() {
        let ready = |with_upstream| Page::Ready { with_upstream };
        for (line, page, is_head) in [
            ("GET /metrics HTTP/1.1", Page::Metrics, false),
            ("GET /metrics?name=x HTTP/1.1", Page::Metrics, false),
            ("HEAD /metrics HTTP/1.1", Page::Metrics, true),
            ("GET /healthz HTTP/1.1", Page::Health, false),
            ("GET /readyz HTTP/1.1", ready(false), false),
            ("GET /readyz?upstream=0 HTTP/1.1", ready(false), false),
            ("GET /readyz?upstream=1 HTTP/1.1", ready(true), false),
            ("HEAD /readyz?a=b&upstream=1 HTTP/1.1", ready(true), true),
            ("GET http://10.0.0.1:9153/healthz HTTP/1.1", Page::Health, false),
        ] {
            let request = format!("{line}\r\nHost: x\r\nAccept: */*\r\n\r\n");
            assert_eq!(parsed(&request), Some(Ok(Request { page, is_head })), "{line}");
            for len in 0..request.len() {
                assert_eq!(parsed(&request[..len]), None, "{line} {len}");
            }
            // What is behind it is another request.
            let more = format!("{request}GET /nothing HTTP/1.1\r\n");
            assert_eq!(parsed(&more), Some(Ok(Request { page, is_head })), "{line}");
        }
        let old = "GET /metrics HTTP/1.0\r\n\r\n";
        assert_eq!(parsed(old), Some(Ok(Request { page: Page::Metrics, is_head: false })));
    }

    #[test]
    fn what_is_wrong_has_its_status() {
        let many = "a: b\r\n".repeat(HEADERS_MAX + 1);
        for (request, status) in [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", Status::NotFound),
            ("GET /metrics/ HTTP/1.1\r\nHost: x\r\n\r\n", Status::NotFound),
            ("POST /nothing HTTP/1.1\r\nHost: x\r\n\r\n", Status::NotFound),
            ("GET http://x HTTP/1.1\r\nHost: x\r\n\r\n", Status::NotFound),
            ("POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n", Status::MethodNotAllowed),
            ("BREW /metrics HTTP/1.1\r\nHost: x\r\n\r\n", Status::MethodNotAllowed),
            ("GET /metrics HTTP/1.1\r\n\r\n", Status::BadRequest),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\nhost: y\r\n\r\n", Status::BadRequest),
            ("GET /metrics HTTP/1.1\r\nHo st: x\r\n\r\n", Status::BadRequest),
            ("GET /metrics\r\n\r\n", Status::BadRequest),
            ("\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03", Status::BadRequest),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Status::VersionNotSupported),
            ("GET /metrics HTTP/3.0\r\nHost: x\r\n\r\n", Status::VersionNotSupported),
            (&format!("GET /metrics HTTP/1.1\r\n{many}\r\n"), Status::HeaderTooLarge),
        ] {
            assert_eq!(parsed(request), Some(Err(status)), "{request:?}");
        }
        let full = |text: &str| parse(text.as_bytes(), true);
        let refused = |status, is_head| Some(Err(Refusal { status, is_head }));
        assert_eq!(full("GET /metricsssss"), refused(Status::UriTooLong, false));
        let long = "HEAD /metrics HTTP/1.1\r\nHost: x\r\nLong: xxxxxx";
        assert_eq!(full(long), refused(Status::HeaderTooLarge, true));
    }

    fn response(status: Status, content_type: &str, content: &str, is_head: bool) -> String {
        let mut response = Response::with_room(content.len());
        let room = response.octets.capacity();
        response.write_str(content).unwrap();
        response.finish(status, content_type, is_head);
        assert_eq!(response.octets.capacity(), room, "nothing is allocated again");
        String::from_utf8(response.rest().to_vec()).unwrap()
    }

    #[test]
    fn responses_say_how_long_they_are_and_that_they_are_the_last() {
        for (status, is_head, content) in [
            (Status::Ok, false, "a 1\n"),
            (Status::Ok, true, ""),
            (Status::NotFound, false, "a 1\n"),
        ] {
            let text = response(status, PLAIN, "a 1\n", is_head);
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {}\r\n", status.line())), "{head}");
            assert!(head.contains("\r\nContent-Length: 4\r\n"), "{head}");
            // Sun, 06 Nov 1994 08:49:37 GMT
            let date = head.lines().find_map(|line| line.strip_prefix("Date: ")).unwrap();
            assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
            assert!(head.ends_with("\r\nConnection: close") && !head.contains("Allow"), "{head}");
            assert_eq!(body, content);
        }
        let text = response(Status::MethodNotAllowed, EXPOSITION, "", false);
        assert!(text.contains("\r\nAllow: GET, HEAD\r\n"), "{text}");
        // The longest line of a status, and the longest content there may be, have their head in its room.
        let text = response(Status::HeaderTooLarge, EXPOSITION, &"x".repeat(10_000_000), true);
        assert!(text.ends_with("\r\n\r\n"), "{text}");
    }
}
