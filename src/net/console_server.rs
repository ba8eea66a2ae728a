//! HTTP on loopback for the user's own browser and scripts: reads small requests whole, hands them to [`Pages`], writes the
//! answers. It answers only callers that name this machine, and never knows what a page means or who may see it.
//!
//! A web page of a stranger can make a browser send requests here. Its name may even be made to point at 127.0.0.1 (DNS
//! rebinding), but then the browser names it in `Host`, and is turned away. That a POST comes from a page of ours is told by
//! [`PageRequest::is_from_own_page`].

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::stall::StallGuard;

/// Connections at a time: a browser opens six.
const CONNECTIONS_MAX: usize = 32;
/// Longest request head, bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Longest body of a form, bytes.
const FORM_BYTES_MAX: usize = 16 * 1024;
/// A connection without a request is closed after this long.
const IDLE: Duration = Duration::from_secs(60);
/// A form that takes longer to arrive is given up.
const FORM_TIMEOUT: Duration = Duration::from_secs(10);
/// A browser that takes nothing of an answer for this long is left.
const STALL: Duration = Duration::from_secs(30);
/// Pause after `accept` failed, which it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a browser or script asks, whole.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// Whether it asks for a change.
    pub is_post: bool,
    /// The path.
    pub path: String,
    /// What follows `?`, or the form of a POST: names and values, decoded.
    pub form: Vec<(String, String)>,
    /// What follows `Bearer ` in `Authorization`.
    pub bearer: Option<String>,
    /// Names and values of the cookies.
    pub cookies: Vec<(String, String)>,
    /// Whether nothing says that another site's page made the browser send this.
    pub is_from_own_page: bool,
}

impl std::fmt::Debug for PageRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Cookies, token and form are secrets.
        write!(f, "PageRequest({} {})", if self.is_post { "POST" } else { "GET" }, self.path)
    }
}

impl PageRequest {
    /// The first value called `name` in the form.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.form.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
    /// The value of a cookie.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// What is answered.
#[derive(Clone, PartialEq, Eq)]
pub struct Page {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub kind: &'static str,
    /// The body.
    pub body: String,
    /// `Location`, for a status that has one.
    pub to: Option<&'static str>,
    /// `Set-Cookie`.
    pub cookie: Option<String>,
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Page({}, {} bytes)", self.status, self.body.len())
    }
}

impl Page {
    /// A page for people.
    pub fn html(status: u16, body: String) -> Self {
        Self { status, kind: "text/html; charset=utf-8", body, to: None, cookie: None }
    }
    /// A sentence for scripts.
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", body: body.into(), to: None, cookie: None }
    }
    /// "See there", by GET.
    pub fn see(to: &'static str) -> Self {
        Self { status: 303, to: Some(to), ..Self::text(303, "") }
    }
}

/// What stands behind the server.
pub trait Pages: Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, request: PageRequest) -> BoxFuture<'_, Page>;
}

/// Serves `pages` on `listener`, which listens on loopback, until `stop` says so. Without a connection it does nothing.
pub async fn serve(listener: TcpListener, pages: Arc<dyn Pages>, mut stop: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let next = async {
            let permit = room.clone().acquire_owned().await.map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>((permit, listener.accept().await?.0))
        };
        let accepted = tokio::select! {
            _ = stop.changed() => return,
            accepted = next => accepted,
        };
        match accepted {
            Ok((permit, stream)) => {
                let (pages, mut stop) = (pages.clone(), stop.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = connection(stream, pages) => {}
                        _ = stop.changed() => {}
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the console cannot accept a connection; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, pages: Arc<dyn Pages>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let pages = pages.clone();
        async move { Ok::<_, Infallible>(written(call(request, pages.as_ref()).await)) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE).max_header_size(HEAD_BYTES_MAX);
    let stream = TokioIo::new(StallGuard::new(stream, STALL));
    if let Err(error) = http.serve_connection(stream, service).await {
        tracing::debug!(%error, "a connection to the console ended with an error");
    }
}

async fn call(request: Request<Incoming>, pages: &dyn Pages) -> Page {
    let text = |name: HeaderName| single(request.headers(), &name);
    let Some(host) = text(header::HOST).filter(|host| names_loopback(host)) else {
        return Page::text(421, "This page is only for this machine: open it as http://127.0.0.1:PORT.\n");
    };
    let is_post = match *request.method() {
        Method::GET | Method::HEAD => false,
        Method::POST => true,
        _ => return Page::text(405, "Only GET and POST mean something here.\n"),
    };
    let bearer = text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer ").map(str::to_owned));
    let cookies = text(header::COOKIE).map(|line| cookies(&line)).unwrap_or_default();
    let is_from_own_page = is_own(request.headers(), &host);
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let form = if is_post {
        match read_form(request.into_body()).await {
            Some(form) => form,
            None => {
                return Page::text(413, format!("A form has at most {FORM_BYTES_MAX} bytes, and arrives at once.\n"));
            }
        }
    } else {
        decoded(&query)
    };
    pages.answer(PageRequest { is_post, path, form, bearer, cookies, is_from_own_page }).await
}

async fn read_form(body: Incoming) -> Option<Vec<(String, String)>> {
    let read = Limited::new(body, FORM_BYTES_MAX).collect();
    let whole = tokio::time::timeout(FORM_TIMEOUT, read).await.ok()?.ok()?.to_bytes();
    std::str::from_utf8(&whole).ok().map(decoded)
}

/// A header that is there once and is text.
fn single(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().map(str::to_owned),
        _ => None,
    }
}

/// Whether the host in `Host` is this machine, whatever the port: it may be forwarded.
fn names_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether neither `Origin` nor `Sec-Fetch-Site` says that another site sent it. Scripts send neither.
fn is_own(headers: &HeaderMap, host: &str) -> bool {
    let origin = match headers.contains_key(header::ORIGIN) {
        true => single(headers, &header::ORIGIN).is_some_and(|origin| origin == format!("http://{host}")),
        false => true,
    };
    let site = HeaderName::from_static("sec-fetch-site");
    let site = match headers.contains_key(&site) {
        true => single(headers, &site).is_some_and(|site| site == "same-origin" || site == "none"),
        false => true,
    };
    origin && site
}

fn cookies(line: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| pair.trim().split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    line.split(';').filter_map(pair).collect()
}

/// Names and values of `application/x-www-form-urlencoded`.
fn decoded(text: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((unescaped(name)?, unescaped(value)?))
    };
    text.split('&').filter(|pair| !pair.is_empty()).filter_map(pair).collect()
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The answer, with what keeps a browser from showing it elsewhere, keeping it, or running anything.
fn written(page: Page) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(page.body)));
    *response.status_mut() = StatusCode::from_u16(page.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    let fixed = [
        ("content-type", page.kind),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        (
            "content-security-policy",
            "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
    ];
    for (name, value) in fixed {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if let Some(to) = page.to {
        headers.insert(header::LOCATION, HeaderValue::from_static(to));
    }
    if let Some(cookie) = page.cookie.and_then(|cookie| HeaderValue::from_str(&cookie).ok()) {
        headers.insert(header::SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Answers with what it was asked.
    struct Echo;

    impl Pages for Echo {
        fn answer(&self, request: PageRequest) -> BoxFuture<'_, Page> {
            Box::pin(async move {
                {
                    let PageRequest { form, bearer, cookies, is_from_own_page, .. } = request;
                    Page::text(
                        200,
                        format!("form: {form:?} bearer: {bearer:?} cookies: {cookies:?} own: {is_from_own_page}"),
                    )
                }
            })
        }
    }

    async fn ask(request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(listener, Arc::new(Echo), stopped));
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        stop.send(true).unwrap();
        server.await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_form_and_its_cookies_are_read() {
        let answer = ask(
            "POST /x HTTP/1.1\r\nHost: 127.0.0.1:99\r\nCookie: a=1; b=2\r\nContent-Length: 14\r\nConnection: close\r\n\
             Origin: http://127.0.0.1:99\r\nAuthorization: Bearer tok\r\n\r\nq=1%2B1+%C3%A4",
        );
        let answer = answer.await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-security-policy: default-src 'none'") && answer.contains("nosniff"));
        assert!(answer.contains("cookies: [(\"a\", \"1\"), (\"b\", \"2\")]"), "{answer}");
        assert!(answer.contains("bearer: Some(\"tok\") ") && answer.contains("own: true"), "{answer}");
        assert!(answer.contains("(\"q\", \"1+1 ä\")"), "{answer}");
    }

    #[tokio::test]
    async fn another_name_for_this_machine_is_turned_away() {
        for host in ["evil.example", "127.0.0.1.evil.example", "evil.example:80", "10.0.0.1", ""] {
            let answer = ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 421 "), "{host}: {answer}");
        }
        let two = "GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
        assert!(!ask(two).await.starts_with("HTTP/1.1 200"));
        for host in ["127.0.0.1:1", "localhost", "[::1]:9", "LOCALHOST:80"] {
            assert!(names_loopback(host), "{host}");
        }
    }

    #[tokio::test]
    async fn what_another_sites_page_sends_is_told() {
        for foreign in
            ["Origin: http://evil.example", "Origin: null", "Origin: http://localhost:1", "Sec-Fetch-Site: cross-site"]
        {
            let answer =
                ask(&format!("GET / HTTP/1.1\r\nHost: localhost\r\n{foreign}\r\nConnection: close\r\n\r\n")).await;
            assert!(answer.contains("own: false"), "{foreign}: {answer}");
        }
    }

    #[tokio::test]
    async fn bounds_and_strange_methods_are_answered() {
        let long = format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000\r\nConnection: close\r\n\r\n{}",
            "a".repeat(20_000)
        );
        assert!(ask(&long).await.starts_with("HTTP/1.1 413 "));
        assert!(
            ask("PUT / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.starts_with("HTTP/1.1 405 ")
        );
        assert_eq!(unescaped("a%2"), None);
        assert_eq!(decoded("a=1&&b&c=%zz&d=2").len(), 3);
    }
}
