//! What a service manager such as systemd is told: that the node is ready, alive, stopping
//! (sd_notify(3)). Without one, nothing is.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The socket of the service manager that started this process.
#[derive(Debug)]
pub struct ServiceManager {
    socket: UnixDatagram,
    /// How often it wants to hear [`alive`](Self::alive), half of what it waits at most; `None` if
    /// it does not watch this process.
    pub interval: Option<Duration>,
}

impl ServiceManager {
    /// The one that the environment names by `NOTIFY_SOCKET`, if there is one.
    ///
    /// # Errors
    /// When there is no such socket.
    pub fn of_environment() -> io::Result<Option<Self>> {
        let variable = |name: &str| std::env::var(name).ok();
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Ok(None) };
        // Of another process, as when a shell has started this one without `exec`.
        let is_ours = variable("WATCHDOG_PID").is_none_or(|pid| pid.trim() == std::process::id().to_string());
        let limit = variable("WATCHDOG_USEC").and_then(|us| us.trim().parse().ok()).filter(|us| is_ours && *us > 0);
        Self::connect(&name, limit.map(Duration::from_micros)).map(Some)
    }

    /// At a socket's path or, after `@`, its abstract name; it ends this process when it has not
    /// heard of it for `limit`.
    ///
    /// # Errors
    /// When there is no such socket.
    pub fn connect(name: &OsStr, limit: Option<Duration>) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        // A service manager that does not read must not hold up who tells it.
        socket.set_nonblocking(true)?;
        Ok(Self { socket, interval: limit.map(|limit| limit / 2) })
    }

    /// The node does what it was started for.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\n{}", status_line(status)));
    }

    /// It is not stuck.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// What it does, for people: the first line of `status`.
    pub fn status(&self, status: &str) {
        self.tell(&status_line(status));
    }

    /// It is about to end.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// A message that is not taken is lost, and the next one may be: there is nobody else to tell.
    fn tell(&self, message: &str) {
        let _ = self.socket.send(message.as_bytes());
    }
}

fn status_line(status: &str) -> String {
    format!("STATUS={}", status.lines().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(listener: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        listener.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let length = listener.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    fn tells_all(listener: &UnixDatagram, name: &OsStr) {
        let manager = ServiceManager::connect(name, Some(Duration::from_secs(4))).unwrap();
        assert_eq!(manager.interval, Some(Duration::from_secs(2)));
        manager.ready("active\nREADY=0");
        assert_eq!(heard(listener), "READY=1\nSTATUS=active", "no line of the status is another message");
        manager.alive();
        assert_eq!(heard(listener), "WATCHDOG=1");
        manager.stopping();
        assert_eq!(heard(listener), "STOPPING=1");
    }

    #[test]
    fn a_service_manager_is_told_at_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        tells_all(&listener, path.as_os_str());
        assert!(ServiceManager::connect(OsStr::new("/nobody/listens"), None).is_err());
    }

    #[test]
    fn a_service_manager_is_told_at_its_abstract_name() {
        let name = format!("peregrine-test-{}", std::process::id());
        let listener = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        tells_all(&listener, OsStr::new(&format!("@{name}")));
    }

    #[test]
    fn one_that_does_not_read_holds_nothing_up() {
        let name = format!("peregrine-deaf-{}", std::process::id());
        let _deaf = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let manager = ServiceManager::connect(OsStr::new(&format!("@{name}")), None).unwrap();
        (0..10_000).for_each(|_| manager.alive());
    }
}
