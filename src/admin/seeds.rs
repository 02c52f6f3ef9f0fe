//! Looking up seeds: names become addresses on a helper thread, because the system's look-up blocks.

use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::control::Control;
use super::options::SeedSource;
use crate::queue::Queue;

/// After a look-up that found nothing for some name.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// After one that found something for all: names may point elsewhere later.
const REFRESH_AFTER: Duration = Duration::from_secs(60);

/// A name and what was last found for it; it is kept when a later look-up fails.
struct Name {
    host: String,
    port: Option<u16>,
    addresses: Vec<SocketAddr>,
    /// True when it was told that nothing was found, so that it is told once.
    complained: bool,
}

type Found = Vec<Result<Vec<SocketAddr>, String>>;

/// Keeps gossip's seeds up to date, for ever.
pub(super) async fn keep_looking(control: Rc<Control>, source: SeedSource) {
    let (mut names, literals) = split(source);
    control.set_seeds(&literals);
    if names.is_empty() {
        return;
    }
    let answers: Arc<Queue<Found>> = Arc::new(Queue::for_task(1));
    loop {
        let all_found = look_up(&mut names, &answers).await;
        let found = names.iter().flat_map(|name| &name.addresses);
        let all: Vec<SocketAddr> = literals.iter().chain(found).copied().collect();
        control.set_seeds(&all);
        monoio::time::sleep(if all_found { REFRESH_AFTER } else { RETRY_AFTER }).await;
    }
}

/// Addresses need no look-up.
fn split(source: SeedSource) -> (Vec<Name>, Vec<SocketAddr>) {
    let name = |host: String, port| Name { host, port, addresses: Vec::new(), complained: false };
    let literals = source.fixed.iter().filter_map(|seed| seed.parse().ok()).collect();
    let named = source.fixed.into_iter().filter(|seed| seed.parse::<SocketAddr>().is_err());
    let dns = source.dns.map(|(host, port)| name(host, Some(port)));
    (named.map(|seed| name(seed, None)).chain(dns).collect(), literals)
}

/// One look-up of all names; true when each has an address.
async fn look_up(names: &mut [Name], answers: &Arc<Queue<Found>>) -> bool {
    let questions: Vec<(String, Option<u16>)> = names.iter().map(|name| (name.host.clone(), name.port)).collect();
    let sender = Arc::clone(answers);
    let work = move || {
        let found = questions.iter().map(|(host, port)| resolve(host, *port)).collect();
        // There is room: the next look-up begins when this answer has been taken.
        let _ = sender.send(found);
    };
    if let Err(error) = thread::Builder::new().name("dns".to_owned()).spawn(work) {
        tracing::warn!("no thread for the look-up of seeds could be started ({error}); trying again");
        return false;
    }
    let found = loop {
        match answers.pop() {
            Some(found) => break found,
            None => answers.ready().await,
        }
    };
    let missing = names.iter_mut().zip(found).map(|(name, result)| name.note(result)).filter(|found| !found).count();
    missing == 0
}

impl Name {
    fn note(&mut self, result: Result<Vec<SocketAddr>, String>) -> bool {
        match result {
            Ok(addresses) => {
                self.addresses = addresses;
                self.complained = false;
                true
            }
            Err(reason) => {
                if !self.complained {
                    tracing::warn!(
                        "seed {} has no address: {reason}. It is looked up again each second; check GossipSeed or \
                         ClusterDns, and the name server",
                        self.host
                    );
                    self.complained = true;
                }
                false
            }
        }
    }
}

fn resolve(host: &str, port: Option<u16>) -> Result<Vec<SocketAddr>, String> {
    let found = match port {
        Some(port) => (host, port).to_socket_addrs(),
        None => host.to_socket_addrs(),
    };
    let addresses: Vec<SocketAddr> = found.map_err(|error| error.to_string())?.collect();
    if addresses.is_empty() { Err("the name has none".to_owned()) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_looked_up() {
        let seeds = ["10.0.0.1:2112", "[fd00::1]:2112", "node-2:2112"].map(str::to_owned).to_vec();
        let (names, literals) = split(SeedSource { fixed: seeds, dns: Some(("nodes".to_owned(), 30777)) });
        let names: Vec<_> = names.iter().map(|name| (name.host.as_str(), name.port)).collect();
        assert_eq!(names, [("node-2:2112", None), ("nodes", Some(30777))], "seeds and DNS are used together");
        assert_eq!(literals.len(), 2);
        assert_eq!(resolve("127.0.0.1", Some(5)), Ok(vec!["127.0.0.1:5".parse().unwrap()]));
        assert!(resolve("no-port-here", None).is_err());
    }

    #[test]
    fn a_failed_look_up_keeps_what_was_found() {
        let (mut names, _) = split(SeedSource { fixed: Vec::new(), dns: Some(("a".to_owned(), 1)) });
        let address: SocketAddr = "10.0.0.1:1".parse().unwrap();
        assert!(names[0].note(Ok(vec![address])));
        assert!(!names[0].note(Err("gone".to_owned())));
        assert_eq!(names[0].addresses, [address]);
    }
}
