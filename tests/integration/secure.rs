//! Ports with TLS for clients, of real nodes: certificates of `ringstore certificates`, `curl` over HTTPS, and frames of the
//! TCP protocol inside TLS.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use serde_json::Value;

use crate::support::client::{
    ANY, BAD_REQUEST, Client, HEARTBEAT_REQUEST, HEARTBEAT_RESPONSE, Package, READ_STREAM_FORWARD,
    READ_STREAM_FORWARD_COMPLETED, WRITE_EVENTS, WRITE_EVENTS_COMPLETED, event,
};
use crate::support::cluster::{Cluster, Node, command, scratch, small_chunks};
use crate::support::messages::{ReadStreamEvents, ReadStreamEventsCompleted, WriteEvents, WriteEventsCompleted};
use crate::support::wait_until;

const LIMIT: Duration = Duration::from_secs(10);

/// A client inside TLS that sends one thing after the other.
struct Secure {
    stream: StreamOwned<ClientConnection, TcpStream>,
    received: Vec<u8>,
}

impl Secure {
    fn connect(address: SocketAddr, authority: &Path, version: &'static SupportedProtocolVersion) -> Secure {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder.with_protocol_versions(&[version]).unwrap();
        let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let connection = ClientConnection::new(config, ServerName::from(address.ip())).unwrap();
        Secure { stream: StreamOwned::new(connection, socket), received: Vec::new() }
    }

    fn ask<M: Message + Default>(&mut self, command: u8, message: &impl Message, answer: u8) -> M {
        let package = Package { command, correlation: [3; 16], payload: message.encode_to_vec() };
        self.stream.write_all(&package.encode()).unwrap();
        loop {
            while let Some(package) = Package::take(&mut self.received).unwrap() {
                if package.command == HEARTBEAT_REQUEST {
                    let pulse = Package { command: HEARTBEAT_RESPONSE, payload: Vec::new(), ..package };
                    self.stream.write_all(&pulse.encode()).unwrap();
                    continue;
                }
                assert_eq!(package.command, answer, "{}", String::from_utf8_lossy(&package.payload));
                return M::decode(&package.payload[..]).unwrap();
            }
            let mut piece = vec![0; 64 << 10];
            let count = self.stream.read(&mut piece).unwrap();
            assert!(count > 0, "the connection is open");
            self.received.extend_from_slice(&piece[..count]);
        }
    }

    fn write(&mut self, stream: &str, id: u8, data: Vec<u8>) {
        let events = vec![event([id; 16], data)];
        let request = WriteEvents { stream: stream.to_owned(), expected_version: ANY, events, require_master: false };
        let written: WriteEventsCompleted = self.ask(WRITE_EVENTS, &request, WRITE_EVENTS_COMPLETED);
        assert_eq!(written.result, 0, "{written:?}");
    }

    fn read(&mut self, stream: &str) -> Vec<Vec<u8>> {
        let stream = stream.to_owned();
        let (from_event_number, max_count) = (0, 100);
        let (resolve_link_tos, require_master) = (false, false);
        let request = ReadStreamEvents { stream, from_event_number, max_count, resolve_link_tos, require_master };
        let page: ReadStreamEventsCompleted = self.ask(READ_STREAM_FORWARD, &request, READ_STREAM_FORWARD_COMPLETED);
        page.events.into_iter().map(|entry| entry.event.unwrap().data).collect()
    }
}

/// Ports that nobody has on these addresses, and certificates for them; the authority's and the options.
fn options(folder: &Path, ips: &[Ipv4Addr]) -> (u16, u16, PathBuf, Vec<String>) {
    let certificates = folder.join("certificates");
    let names = ips.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(",");
    let made = command()
        .args(["certificates", "--node", &format!("node={names}"), "--out"])
        .arg(&certificates)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let free = || {
        let port = TcpListener::bind((ips[0], 0)).unwrap().local_addr().unwrap().port();
        ips.iter().all(|ip| TcpListener::bind((*ip, port)).is_ok()).then_some(port)
    };
    let mut ports = std::iter::repeat_with(free).flatten();
    let (tcp, http) = (ports.next().unwrap(), ports.next().unwrap());
    let file = |name: &str| certificates.join(name).display().to_string();
    let mut options: Vec<String> = small_chunks(4 << 20).into();
    options.extend(["--ext-secure-tcp-port".to_owned(), tcp.to_string()]);
    options.extend(["--ext-secure-http-port".to_owned(), http.to_string()]);
    options.extend(["--certificate-file".to_owned(), file("node.pem")]);
    options.extend(["--certificate-private-key-file".to_owned(), file("node.key")]);
    (tcp, http, certificates.join("ca.pem"), options)
}

fn curl(arguments: &[&str]) -> Option<Output> {
    match Command::new("curl").args(["--silent", "--show-error", "--max-time", "10"]).args(arguments).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("there is no curl here: HTTPS is not asked for by another program than this one");
            None
        }
        output => Some(output.unwrap()),
    }
}

#[test]
fn one_node_serves_clients_with_tls_and_no_others() {
    let folder = scratch("secure");
    let ip = Ipv4Addr::new(127, 0, 0, 101);
    let (tcp, http, authority, mut given) = options(&folder, &[ip]);
    given.push("--disable-insecure-tcp".to_owned());
    let mut node = Node::single(&folder, &given.iter().map(String::as_str).collect::<Vec<_>>());
    node.start_and_wait().unwrap();
    let address = SocketAddr::from((ip, tcp));
    for (version, stream) in [(&TLS12, "twelve"), (&TLS13, "thirteen")] {
        let mut client = Secure::connect(address, &authority, version);
        client.write(stream, 1, vec![1; 100]);
        client.write(stream, 2, vec![2; 500_000]);
        assert!(client.read(stream) == [vec![1; 100], vec![2; 500_000]], "{stream}");
    }
    assert!(TcpStream::connect(node.ext_tcp()).is_err(), "the plain port is not open");

    let base = format!("https://{ip}:{http}");
    let ca = authority.to_str().unwrap();
    if let Some(untrusted) = curl(&[&format!("{base}/ping")]) {
        assert_eq!(untrusted.status.code(), Some(60), "an authority that it does not know");
        let get = |path: &str| -> Value {
            let output = curl(&["--fail", "--cacert", ca, &format!("{base}{path}")]).unwrap();
            assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
            serde_json::from_slice(&output.stdout).unwrap()
        };
        assert!(get("/ping")["text"].as_str().unwrap().contains("Ping"));
        let told = &get("/gossip?format=json")["members"][0];
        assert_eq!((&told["externalSecureTcpPort"], &told["externalTcpPort"]), (&tcp.into(), &0.into()));
        assert_eq!((&told["externalTcpIp"], &told["internalSecureTcpPort"]), (&ip.to_string().into(), &0.into()));
        let clients = &get("/stats")["clients"];
        assert!(clients["tlsConnectionsNow"].as_u64() >= Some(1), "{clients}");
        assert_eq!(clients["tlsFailures"], 1, "the one that did not trust");
    }

    let mut plain = Client::connect(address, LIMIT).unwrap();
    let refused = plain.call(WRITE_EVENTS, b"".to_vec(), LIMIT, &|| false).unwrap();
    assert_eq!(refused.command, BAD_REQUEST);
    let text = String::from_utf8_lossy(&refused.payload).into_owned();
    assert!(text.contains("TLS"), "{text}");
    wait_until("the log says who it was", LIMIT, || node.tail().contains("does not speak TLS")).unwrap();
    assert!(node.tail().contains("a client of the TCP protocol without TLS"), "{}", node.tail());
    assert!(node.stop().unwrap().success());
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn every_node_tells_the_secure_ports_of_all() {
    let folder = scratch("secure-cluster");
    let ips = [101, 102, 103].map(|last| Ipv4Addr::new(127, 0, 0, last));
    let (tcp, _, authority, given) = options(&folder, &ips);
    let cluster = Cluster::start(&folder, &given).unwrap();
    for node in &cluster.nodes {
        wait_until("the secure ports are told", LIMIT, || {
            let gossip = crate::support::http::get(node.ext_http(), "/gossip", LIMIT)
                .and_then(|answer| answer.json().map_err(|error| std::io::Error::other(error.to_string())));
            let members = gossip.ok().and_then(|gossip| gossip["members"].as_array().cloned()).unwrap_or_default();
            members.len() == 3 && members.iter().all(|member| member["externalSecureTcpPort"] == tcp)
        })
        .unwrap();
        // Through a follower, too.
        let mut client = Secure::connect(SocketAddr::from((node.ip, tcp)), &authority, &TLS13);
        client.write(&format!("at-{}", node.ip), 7, b"forwarded".to_vec());
    }
    drop(cluster);
    std::fs::remove_dir_all(folder).unwrap();
}
