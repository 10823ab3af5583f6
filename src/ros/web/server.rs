//! The page and its events over HTTP. Nothing can be changed by it.

use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use peregrine_core::scheduling::use_default_scheduling;
use serde_json::json;
use tiny_http::{Header, Method, Request, Response, Server};

use super::hub::{Hub, Viewer};
use super::THREADS;

const PAGE: &str = include_str!("page.html");

/// The page has no resources but itself, and pictures in its events.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What a stream of events begins with (HTML Living Standard, server-sent events): its end is that of
/// the connection, after which a browser waits for a second.
const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\
                      Connection: close\r\n\r\nretry: 1000\n\n";

/// How often it is checked whether the page is to end.
const POLL: Duration = Duration::from_millis(100);

/// Longest silence of a stream: something is sent then, which shows whether the viewer is still there.
const SILENCE: Duration = Duration::from_secs(2);

/// Serves until `stop`.
pub fn run(server: &Server, hub: &Arc<Hub>, stop: &Arc<AtomicBool>) {
    // The thread that started this one may have a real-time priority.
    use_default_scheduling();
    while !stop.load(Relaxed) {
        match server.recv_timeout(POLL) {
            // Who has gone before the answer is no error of the node.
            Ok(Some(request)) => drop(answer(request, hub, stop)),
            Ok(None) => {}
            Err(error) => {
                tracing::error!("the web page is no longer served: {error}");
                return;
            }
        }
    }
}

fn answer(request: Request, hub: &Arc<Hub>, stop: &Arc<AtomicBool>) -> io::Result<()> {
    let host = request.headers().iter().find(|header| header.field.equiv("Host"));
    if !host.is_some_and(|host| is_of_here(host.value.as_str())) {
        // A page of a foreign site would otherwise read these pictures by having its own name lead
        // here (DNS rebinding).
        let why = "ask for this page by the machine's address, or by a name without a domain\n";
        return request.respond(Response::from_string(why).with_status_code(403));
    }
    match (request.method(), request.url()) {
        (Method::Get, "/") => request.respond(
            Response::from_string(PAGE)
                .with_header(header("Content-Type", "text/html; charset=utf-8"))
                .with_header(header("Content-Security-Policy", POLICY)),
        ),
        (Method::Get, "/events") => {
            let Some(viewer) = hub.join() else {
                let why = format!("{} others are looking already, as many as web_viewers permits\n", hub.max_viewers);
                return request.respond(Response::from_string(why).with_status_code(503));
            };
            let (hub, stop) = (Arc::clone(hub), Arc::clone(stop));
            // Not waited for: it may hang in a connection until the system gives that up.
            let stream = move || drop(stream(request, viewer, &hub, &stop));
            thread::Builder::new().name(THREADS[2].into()).spawn(stream).map(drop)
        }
        _ => request.respond(Response::from_string("there is nothing but / here\n").with_status_code(404)),
    }
}

fn header(name: &str, value: &str) -> Header {
    Header::from_bytes(name, value).expect("both are ASCII")
}

/// Sends events until the viewer has gone, or the page ends.
fn stream(request: Request, mut viewer: Viewer, hub: &Hub, stop: &AtomicBool) -> io::Result<()> {
    use_default_scheduling();
    let mut to = request.into_writer();
    to.write_all(STREAM.as_bytes())?;
    let hello = json!({ "node": hub.node, "cameras": hub.cameras });
    write!(to, "event: hello\ndata: {hello}\n\n")?;
    to.flush()?;
    let mut last = Instant::now();
    while !stop.load(Relaxed) {
        if let Some(event) = viewer.next(POLL) {
            write!(to, "event: {}\ndata: {}\n\n", event.kind, event.json)?;
        } else if last.elapsed() >= SILENCE {
            to.write_all(b"event: alive\ndata: 1\n\n")?;
        } else {
            continue;
        }
        to.flush()?;
        last = Instant::now();
    }
    Ok(())
}

/// Whether it is an address, or a name that no foreign site can have: without a domain, or that of
/// a local network.
fn is_of_here(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let is_address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    is_address || (!name.is_empty() && (!name.contains('.') || name.ends_with(".local")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_foreign_domain_is_refused() {
        for host in ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "192.168.1.7", "car:8080", "car.local"] {
            assert!(is_of_here(host), "{host}");
        }
        for host in ["", "evil.example:8080", "127.0.0.1.evil.example", ":80"] {
            assert!(!is_of_here(host), "{host}");
        }
    }
}
