//! Where to connect: asks the seeds for the gossip, finds the leader or the followers, and looks again when somebody
//! suspects that it has changed. Blocking, on its own thread; the threads that make the load only read the result.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

const CONNECT_LIMIT: Duration = Duration::from_millis(500);
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// A gossip answer of a few members; more than this is something else.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// Which node the load goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Leader,
    Follower,
    /// Its client TCP endpoint as given, and resolved.
    Node(String, SocketAddr),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "leader" => Ok(Self::Leader),
            "follower" => Ok(Self::Follower),
            _ => Ok(Self::Node(text.to_owned(), endpoint(text)?)),
        }
    }
}

/// `HOST:PORT`, looked up.
pub(crate) fn endpoint(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().map_err(|error| format!("`{text}` is not HOST:PORT of a node: {error}"))?;
    found.next().ok_or_else(|| format!("`{text}` has no address"))
}

/// One node as the gossip shows it.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub role: Role,
    pub tcp: SocketAddr,
    pub http: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Leader,
    Follower,
    Other,
}

/// What one answer shows.
#[derive(Debug)]
struct Shown {
    live: Vec<Member>,
    /// With the dead ones.
    count: usize,
}

#[derive(Debug, Default)]
struct Known {
    addresses: Vec<SocketAddr>,
    members: Vec<Member>,
    /// Members that the gossip shows, with the dead ones.
    shown: usize,
    suspected: bool,
}

/// What is known of the cluster.
#[derive(Debug)]
pub(crate) struct Directory {
    target: Target,
    seeds: Vec<SocketAddr>,
    known: Mutex<Known>,
    suspicion: Condvar,
}

impl Directory {
    /// Looks until the wanted node is found.
    ///
    /// # Errors
    /// When it is not within `limit`: no node answers, or there is no such node.
    pub(crate) fn discover(target: Target, seeds: Vec<SocketAddr>, limit: Duration) -> anyhow::Result<Arc<Self>> {
        let known = Mutex::new(Known::default());
        let directory = Arc::new(Self { target, seeds, known, suspicion: Condvar::new() });
        let start = Instant::now();
        while let Err(error) = directory.look() {
            if let Target::Node(_, address) = directory.target {
                // The gossip would be good for the nodes' statistics; the load does without.
                directory.lock().addresses = vec![address];
                break;
            }
            if start.elapsed() > limit {
                return Err(error.context(format!("nothing to connect to within {} s", limit.as_secs())));
            }
            std::thread::sleep(ASK_AGAIN_AFTER);
        }
        let watcher = Arc::clone(&directory);
        std::thread::Builder::new().name("directory".into()).spawn(move || watcher.watch())?;
        Ok(directory)
    }

    /// Where connection `index` should go.
    pub(crate) fn address(&self, index: usize) -> Option<SocketAddr> {
        let known = self.lock();
        (!known.addresses.is_empty()).then(|| known.addresses[index % known.addresses.len()])
    }

    /// Whether a connection to this address is still where the load should go.
    pub(crate) fn wants(&self, address: SocketAddr) -> bool {
        let known = self.lock();
        known.addresses.is_empty() || known.addresses.contains(&address)
    }

    /// The node does not answer, or says that it is not what we want: look again, soon.
    pub(crate) fn suspect(&self) {
        self.lock().suspected = true;
        self.suspicion.notify_one();
    }

    /// A node told who the leader is.
    pub(crate) fn leader_is(&self, address: SocketAddr) {
        if self.target == Target::Leader {
            self.lock().addresses = vec![address];
        }
    }

    /// All live nodes that the gossip showed last.
    pub(crate) fn members(&self) -> Vec<Member> {
        self.lock().members.clone()
    }

    /// How many nodes the gossip showed last, with those that it calls dead.
    pub(crate) fn shown(&self) -> usize {
        self.lock().shown
    }

    /// Asks the seeds, and the members known before, until one answers with what we want.
    pub(crate) fn look(&self) -> anyhow::Result<()> {
        let mut asked = self.seeds.clone();
        asked.extend(self.lock().members.iter().map(|member| member.http));
        asked.dedup();
        let mut last = None;
        for seed in asked {
            match gossip(seed).and_then(|shown| self.take(shown)) {
                Ok(()) => return Ok(()),
                Err(error) => last = Some(error.context(format!("gossip of {seed}"))),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no seed to ask; give one with --seed HOST:HTTPPORT")))
    }

    fn take(&self, shown: Shown) -> anyhow::Result<()> {
        let Shown { live: members, count } = shown;
        let of = |role| members.iter().filter(|member| member.role == role).map(|member| member.tcp).collect();
        let addresses: Vec<_> = match &self.target {
            Target::Leader => of(Role::Leader),
            Target::Follower => of(Role::Follower),
            Target::Node(_, address) => vec![*address],
        };
        ensure!(!addresses.is_empty(), "it shows {} live nodes and no {:?} among them", members.len(), self.target);
        *self.lock() = Known { addresses, members, shown: count, suspected: false };
        Ok(())
    }

    fn watch(&self) {
        loop {
            let mut known = self.lock();
            while !known.suspected {
                known = self.suspicion.wait(known).unwrap_or_else(PoisonError::into_inner);
            }
            drop(known);
            // Whoever suspects goes on trying, so what this time brings is not lost when it is an error.
            let _ = self.look();
            std::thread::sleep(ASK_AGAIN_AFTER);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// --- Gossip over HTTP ------------------------------------------------------------------------------------------------

#[derive(Deserialize)]
struct Gossip {
    members: Vec<GossipMember>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GossipMember {
    state: String,
    is_alive: bool,
    external_tcp_ip: String,
    external_tcp_port: u16,
    external_http_ip: String,
    external_http_port: u16,
}

fn gossip(seed: SocketAddr) -> anyhow::Result<Shown> {
    let body = get(seed, "/gossip?format=json")?;
    parse(&body)
}

fn parse(body: &str) -> anyhow::Result<Shown> {
    let gossip: Gossip = serde_json::from_str(body).context("the answer is no gossip")?;
    let count = gossip.members.len();
    let alive = gossip.members.into_iter().filter(|member| member.is_alive);
    let live: anyhow::Result<Vec<Member>> = alive
        .map(|member| {
            let role = match member.state.as_str() {
                "Master" | "Leader" => Role::Leader,
                "Slave" | "Follower" => Role::Follower,
                _ => Role::Other,
            };
            let tcp = SocketAddr::new(member.external_tcp_ip.parse()?, member.external_tcp_port);
            let http = SocketAddr::new(member.external_http_ip.parse()?, member.external_http_port);
            Ok(Member { role, tcp, http })
        })
        .collect();
    Ok(Shown { live: live?, count })
}

/// GET over a connection of its own: the answer's body.
fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT).context("no connection")?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: application/json\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).context("no whole answer")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("the answer to GET {path} is `{status}`");
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOSSIP: &str = r#"{"serverIp": "127.0.0.2", "serverPort": 2112, "members": [
        {"instanceId": "x", "state": "Master", "isAlive": false, "externalTcpIp": "127.0.0.2",
         "externalTcpPort": 1113, "externalHttpIp": "127.0.0.2", "externalHttpPort": 2113},
        {"instanceId": "y", "state": "Master", "isAlive": true, "externalTcpIp": "127.0.0.3",
         "externalTcpPort": 1113, "externalHttpIp": "127.0.0.3", "externalHttpPort": 2113},
        {"instanceId": "z", "state": "Slave", "isAlive": true, "externalTcpIp": "127.0.0.4",
         "externalTcpPort": 1113, "externalHttpIp": "127.0.0.4", "externalHttpPort": 2113}]}"#;

    fn directory(target: Target) -> Directory {
        Directory { target, seeds: Vec::new(), known: Mutex::default(), suspicion: Condvar::new() }
    }

    #[test]
    fn the_live_leader_is_found_and_the_followers_are() {
        let leader = directory(Target::Leader);
        leader.take(parse(GOSSIP).unwrap()).unwrap();
        let address = leader.address(5).unwrap();
        assert_eq!(address.to_string(), "127.0.0.3:1113");
        assert_eq!((leader.members().len(), leader.shown()), (2, 3), "the dead are left out, and known");
        let follower = directory(Target::Follower);
        follower.take(parse(GOSSIP).unwrap()).unwrap();
        assert_eq!(follower.address(0).unwrap().to_string(), "127.0.0.4:1113");
        assert!(!follower.wants(address));
    }

    #[test]
    fn without_a_leader_it_says_so_and_keeps_what_it_knew() {
        let directory = directory(Target::Leader);
        directory.take(parse(GOSSIP).unwrap()).unwrap();
        let without = GOSSIP.replace("\"Master\"", "\"Unknown\"");
        let error = directory.take(parse(&without).unwrap()).unwrap_err().to_string();
        assert!(error.contains("no Leader"), "{error}");
        assert!(directory.address(0).is_some());
        let told = "127.0.0.9:1113".parse().unwrap();
        directory.leader_is(told);
        assert_eq!(directory.address(3), Some(told));
    }

    #[test]
    fn targets() {
        assert_eq!("leader".parse(), Ok(Target::Leader));
        assert_eq!("follower".parse(), Ok(Target::Follower));
        let Ok(Target::Node(text, address)) = "127.0.0.1:1113".parse::<Target>() else { panic!("a node") };
        assert_eq!((text.as_str(), address.to_string().as_str()), ("127.0.0.1:1113", "127.0.0.1:1113"));
        assert!("nonsense".parse::<Target>().unwrap_err().contains("HOST:PORT"));
    }
}
