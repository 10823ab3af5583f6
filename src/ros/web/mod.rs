//! One page for a browser: the picture of each camera with what was found in it, latencies against
//! the deadline, counts, and the diagnostics in words.
//!
//! - here: [`WebPage`], from configure to cleanup.
//! - [`hub`]: what viewers see, made only while there are some. [`pictures`]: the thread that makes
//!   it. [`events`]: in JSON.
//! - [`server`]: HTTP. `page.html`: the page, which draws what the events tell.

pub mod events;
pub mod hub;
pub mod pictures;
pub mod server;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::capture::CaptureQueue;
use super::parameters::{ParameterError, Parameters};
use hub::Hub;
use tiny_http::Server;

/// Frames on their way to the page, for each camera, and for all together.
const QUEUE: (usize, usize) = (2, 2);

/// Names of its threads, which no frame waits for.
pub const THREADS: [&str; 3] = ["web", "web pictures", "web viewer"];

/// What the parameters say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    pub address: SocketAddr,
    pub max_viewers: usize,
}

impl Settings {
    /// `None` if there is to be no page.
    ///
    /// # Errors
    /// When the address is none.
    pub fn new(parameters: &Parameters) -> Result<Option<Self>, ParameterError> {
        let text = parameters.text("web_address");
        let address: IpAddr = text.parse().map_err(|_| ParameterError::NotPermitted {
            name: "web_address".into(),
            expected: "an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all".into(),
            found: format!("'{text}'"),
        })?;
        let port = parameters.count("web_port") as u16;
        let max_viewers = parameters.count("web_viewers");
        Ok((port != 0).then(|| Self { address: SocketAddr::new(address, port), max_viewers }))
    }
}

/// The page, which goes with it.
pub struct WebPage {
    /// For the frame thread.
    pub queue: Arc<CaptureQueue>,
    pub hub: Arc<Hub>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl WebPage {
    /// Serves the page of the node `node` with cameras of these names.
    ///
    /// # Errors
    /// When the address cannot be listened on, or no thread be started.
    pub fn start(settings: Settings, node: &str, cameras: &[String]) -> io::Result<Self> {
        let server = Server::http(settings.address).map_err(io::Error::other)?;
        let queue = Arc::new(CaptureQueue::new(QUEUE.0 * cameras.len() + QUEUE.1));
        let hub = Arc::new(Hub::new(node, cameras, settings.max_viewers, Arc::clone(&queue)));
        let stop = Arc::new(AtomicBool::new(false));
        let mut page = Self { queue, hub, stop, threads: Vec::new() };
        let spawn = |name: &str| thread::Builder::new().name(name.into());
        let (hub, stop) = (Arc::clone(&page.hub), Arc::clone(&page.stop));
        page.threads.push(spawn(THREADS[0]).spawn(move || server::run(&server, &hub, &stop))?);
        let (hub, queue, stop) = (Arc::clone(&page.hub), Arc::clone(&page.queue), Arc::clone(&page.stop));
        page.threads.push(spawn(THREADS[1]).spawn(move || pictures::run(&hub, &queue, &stop))?);
        Ok(page)
    }
}

impl Drop for WebPage {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use r2r::ParameterValue;

    fn settings(more: &[(&str, ParameterValue)]) -> Result<Option<Settings>, ParameterError> {
        Settings::new(&Parameters::with(more.iter().map(|(n, v)| ((*n).to_owned(), v.clone()))).unwrap())
    }

    #[test]
    fn the_page_is_off_and_on_loopback_unless_said_otherwise() {
        assert_eq!(settings(&[]), Ok(None));
        let port = ("web_port", ParameterValue::Integer(8080));
        let on = settings(std::slice::from_ref(&port)).unwrap().unwrap();
        assert_eq!(on.address.to_string(), "127.0.0.1:8080");
        let all = ("web_address", ParameterValue::String("0.0.0.0".into()));
        assert_eq!(settings(&[port.clone(), all]).unwrap().unwrap().address.to_string(), "0.0.0.0:8080");
        let wrong = ("web_address", ParameterValue::String("everywhere".into()));
        assert!(settings(&[port, wrong]).unwrap_err().to_string().contains("'web_address'"));
    }
}
