//! Certificates for tests, of this module and of those that use it: an authority, nodes, and strangers; and a peer that waits
//! for its connection.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::authority::{Authority, Issued, Validity};
use super::channel::TlsChannel;
use super::identity::{Identity, IdentityFiles};
use super::plane::Plane;
use super::trust::{TlsConfigs, Trust};

/// A day.
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// A folder that goes with its owner, and an authority.
#[derive(Debug)]
pub(crate) struct TestCluster {
    folder: PathBuf,
    pub(crate) authority: Authority,
}

/// Valid today.
pub(crate) fn today() -> Validity {
    Validity::days(SystemTime::now(), 365)
}

/// It was valid until yesterday.
pub(crate) fn past() -> Validity {
    let now = SystemTime::now();
    Validity { from: now - 10 * DAY, until: now - DAY }
}

/// It is valid from tomorrow on.
pub(crate) fn future() -> Validity {
    let now = SystemTime::now();
    Validity { from: now + DAY, until: now + 10 * DAY }
}

impl TestCluster {
    pub(crate) fn new() -> TestCluster {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("ringstore-security-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        TestCluster { folder, authority: Authority::new("test authority", today()).unwrap() }
    }

    /// A certificate of the cluster's authority for these names.
    pub(crate) fn issue(&self, names: &[&str], validity: Validity) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.authority.issue("node", &names, validity).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file that its owner alone can read.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        set_mode(&path, 0o600);
        path
    }

    /// Writes a certificate, its key, and the authority; `name` begins the files' names.
    pub(crate) fn files(&self, name: &str, issued: &Issued) -> IdentityFiles {
        IdentityFiles {
            certificate: self.write(&format!("{name}.pem"), &issued.certificate),
            key: self.write(&format!("{name}.key"), &issued.key),
            authorities: self.write("ca.pem", &self.authority.own().certificate),
        }
    }

    /// What a node with these names and addresses has.
    pub(crate) fn trust(&self, names: &[&str]) -> Arc<Trust> {
        let files = self.files(&names.join("-").replace(':', "_"), &self.issue(names, today()));
        Arc::new(Trust::load(files, None).unwrap())
    }

    /// What a node had that goes on while its certificate expires.
    pub(crate) fn trust_unchecked(&self, issued: &Issued) -> Arc<Trust> {
        let identity = Identity::unchecked(issued, &self.authority.own().certificate);
        let configs = TlsConfigs::new(&identity, None).unwrap();
        Arc::new(Trust::unchecked(self.files("unchecked", issued), configs))
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// One end of a connection, plain or TLS. Errors are their words.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    channel: Option<TlsChannel>,
    opened: Vec<u8>,
}

impl Peer {
    /// Connects, and shakes hands where the plane says so.
    pub(crate) fn dial(address: SocketAddr, plane: &Plane) -> Result<Peer, String> {
        let stream = TcpStream::connect(address).unwrap();
        Peer::over(stream, plane.dialled(address.ip()).unwrap())
    }

    /// The other end.
    pub(crate) fn answer(stream: TcpStream, plane: &Plane) -> Result<Peer, String> {
        let channel = plane.accepted(stream.peer_addr().unwrap().ip()).unwrap();
        Peer::over(stream, channel)
    }

    /// Goes on with a connection that began elsewhere.
    pub(crate) fn resume(stream: TcpStream, tls: Option<(TlsChannel, Vec<u8>)>) -> Peer {
        let (channel, opened) = tls.unzip();
        Peer { stream, channel, opened: opened.unwrap_or_default() }
    }

    /// The other way round.
    pub(crate) fn into_parts(self) -> (TcpStream, Option<(TlsChannel, Vec<u8>)>) {
        self.stream.set_read_timeout(None).unwrap();
        (self.stream, self.channel.map(|channel| (channel, self.opened)))
    }

    fn over(stream: TcpStream, channel: Option<TlsChannel>) -> Result<Peer, String> {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut peer = Peer { stream, channel, opened: Vec::new() };
        while peer.channel.as_ref().is_some_and(|channel| !channel.is_established()) {
            peer.send_own()?;
            if peer.channel.as_ref().is_some_and(|channel| !channel.is_established()) {
                peer.receive(0)?;
            }
        }
        peer.send_own()?;
        Ok(peer)
    }

    fn send_own(&mut self) -> Result<(), String> {
        let mut wire = Vec::new();
        self.channel.iter_mut().for_each(|channel| channel.take_handshake(&mut wire));
        self.stream.write_all(&wire).map_err(|error| error.to_string())
    }

    /// False at the end. A plain one takes no more than `most`: what follows may be for whoever has the socket then.
    fn receive(&mut self, most: usize) -> Result<bool, String> {
        let mut wire = vec![0; if self.channel.is_some() { 16 << 10 } else { most }];
        let count = self.stream.read(&mut wire).map_err(|error| error.to_string())?;
        let Some(channel) = &mut self.channel else {
            self.opened.extend_from_slice(&wire[..count]);
            return Ok(count > 0);
        };
        let received = if count == 0 { channel.ended() } else { channel.receive(&wire[..count], &mut self.opened) };
        // Somebody may be gone who does not want to hear the alert.
        let _ = self.send_own();
        received.map_err(|error| error.to_string())?;
        Ok(count > 0)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut wire = Vec::new();
        match &mut self.channel {
            Some(channel) => channel.seal(bytes, &mut wire).map_err(|error| error.to_string())?,
            None => wire.extend_from_slice(bytes),
        }
        self.stream.write_all(&wire).map_err(|error| error.to_string())
    }

    /// Exactly so many bytes.
    pub(crate) fn read(&mut self, count: usize) -> Result<Vec<u8>, String> {
        while self.opened.len() < count {
            if !self.receive(count - self.opened.len())? {
                return Err(format!("the end after {} of {count} bytes: {:02x?}", self.opened.len(), self.opened));
            }
        }
        Ok(self.opened.drain(..count).collect())
    }

    /// What comes until the end, and the words of an end that is none.
    pub(crate) fn read_to_end(&mut self) -> (Vec<u8>, Option<String>) {
        loop {
            match self.receive(16 << 10) {
                Ok(true) => {}
                Ok(false) => return (std::mem::take(&mut self.opened), None),
                Err(error) => return (std::mem::take(&mut self.opened), Some(error)),
            }
        }
    }
}
