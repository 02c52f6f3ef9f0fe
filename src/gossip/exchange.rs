//! What our nodes post to each other: JSON with keys of our own, so that it cannot be taken for v5's document.

use serde::{Deserialize, Serialize};

use super::member::Member;
use crate::limits::{ADVERTISE_RULES_MAX, CLUSTER_SIZE_MAX};
use crate::types::{Guid, NodeId};

/// Version of the format; a node refuses others.
const FORMAT: u32 = 1;

/// Version of the format of exchanges, for people.
pub const EXCHANGE_FORMAT: u32 = FORMAT;

/// Nodes that gossip keeps at most, the own one included: members and clones.
pub(super) const NODES_MAX: usize = 64;

/// The largest exchange, bytes: an entry with two full lists and all its address rules takes less than 6 KiB.
pub const EXCHANGE_MAX_BYTES: usize = NODES_MAX * (6 << 10);

/// Why a body is no exchange. The sender is told, and nothing changes here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// From an EventStoreDB node.
    #[error(
        "this is the gossip of an EventStoreDB node: its nodes and ringstore's cannot form one cluster; remove this \
         node from its GossipSeed or DNS name"
    )]
    EventStore,
    /// Of another release of ours.
    #[error("gossip format {found} is not understood here, only {FORMAT}: bring the nodes to releases that fit")]
    Format {
        /// The format.
        found: u32,
    },
    /// Not JSON, or not this JSON.
    #[error("not a gossip exchange between ringstore nodes: {source}")]
    Json {
        /// From the parser.
        #[source]
        source: serde_json::Error,
    },
    /// Too many nodes or members.
    #[error("the exchange has {found} {what}, more than the {limit} that are taken")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
        /// The limit.
        limit: usize,
    },
}

/// A node's view, posted to another one, and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exchange {
    ringstore_gossip: u32,
    /// Who sends.
    pub from: NodeId,
    /// Which run of it.
    pub instance: Guid,
    /// All entries it has, its own included.
    pub nodes: Vec<Relayed>,
}

/// An entry on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Relayed {
    /// How long ago the sender last learnt that the node lived. An age, so that no two clocks are compared.
    pub heard_ms_ago: u64,
    /// The entry.
    pub member: Member,
}

impl Exchange {
    pub(super) fn new(from: NodeId, instance: Guid, nodes: Vec<Relayed>) -> Exchange {
        Exchange { ringstore_gossip: FORMAT, from, instance, nodes }
    }

    /// The body to post.
    ///
    /// # Panics
    /// Never: these values have a JSON form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an exchange has a JSON form")
    }

    /// Reads a body.
    ///
    /// # Errors
    /// See [`ExchangeError`].
    pub fn parse(body: &[u8]) -> Result<Exchange, ExchangeError> {
        let exchange: Exchange = serde_json::from_slice(body).map_err(|source| explain(body, source))?;
        if exchange.ringstore_gossip != FORMAT {
            return Err(ExchangeError::Format { found: exchange.ringstore_gossip });
        }
        let within = |what, found, limit| {
            if found > limit { Err(ExchangeError::TooMany { what, found, limit }) } else { Ok(()) }
        };
        within("nodes", exchange.nodes.len(), NODES_MAX)?;
        for Relayed { member, .. } in &exchange.nodes {
            within("address rules of a node", member.ext_advertise.len(), ADVERTISE_RULES_MAX)?;
            for list in [&member.accepted_founding, &member.membership].into_iter().flatten() {
                within("members in a list", list.members.len(), CLUSTER_SIZE_MAX)?;
            }
        }
        Ok(exchange)
    }
}

/// A better reason than the parser's, if the body is something we know.
fn explain(body: &[u8], source: serde_json::Error) -> ExchangeError {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    // v5 reads keys in any case, and writes them in camelCase.
    if value.get("members").is_some() && value.get("serverIp").is_some() {
        return ExchangeError::EventStore;
    }
    match value.get("ringstoreGossip").and_then(serde_json::Value::as_u64) {
        Some(found) if found != u64::from(FORMAT) => {
            ExchangeError::Format { found: u32::try_from(found).unwrap_or(u32::MAX) }
        }
        _ => ExchangeError::Json { source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::table::tests::member;

    fn longest_rule() -> crate::gossip::AddressRule {
        let address = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        crate::gossip::AddressRule {
            network: format!("{address}/128").parse().unwrap(),
            address: address.parse().unwrap(),
        }
    }

    #[test]
    fn rules_travel_are_bounded_and_may_be_missing() {
        let mut ruled = member(1);
        ruled.ext_advertise = vec![longest_rule(); 2];
        let exchange = |member| {
            let nodes = vec![Relayed { heard_ms_ago: 0, member }];
            String::from_utf8(Exchange::new(NodeId(Guid([1; 16])), Guid([9; 16]), nodes).encode()).unwrap()
        };
        let json = exchange(ruled.clone());
        assert!(json.contains(r#""extAdvertise":[{"for":"ffff:"#), "{json}");
        assert_eq!(Exchange::parse(json.as_bytes()).unwrap().nodes[0].member, ruled);
        // A node of a release before says nothing of rules, one of a release to come perhaps more.
        let old = exchange(member(1));
        assert!(!old.contains("extAdvertise"));
        let new = old.replacen(r#""priority""#, r#""toCome":{"x":[1]},"extAdvertise":[],"priority""#, 1);
        assert_eq!(Exchange::parse(new.as_bytes()).unwrap().nodes[0].member, member(1));
        ruled.ext_advertise = vec![longest_rule(); ADVERTISE_RULES_MAX + 1];
        let error = Exchange::parse(exchange(ruled).as_bytes()).unwrap_err().to_string();
        assert_eq!(error, "the exchange has 17 address rules of a node, more than the 16 that are taken");
    }

    #[test]
    fn an_exchange_comes_back_as_it_went() {
        let nodes =
            vec![Relayed { heard_ms_ago: 12, member: member(1) }, Relayed { heard_ms_ago: 0, member: member(2) }];
        let exchange = Exchange::new(NodeId(Guid([1; 16])), Guid([9; 16]), nodes);
        assert_eq!(Exchange::parse(&exchange.encode()).unwrap(), exchange);
    }

    #[test]
    fn what_is_none_is_refused_in_words() {
        let check = |body: &str, expected: &str| {
            let error = Exchange::parse(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{body}: {error}");
        };
        check(r#"{"members":[],"serverIp":"127.0.0.1","serverPort":2112}"#, "EventStoreDB");
        check(r#"{"ringstoreGossip":2,"what":1}"#, "format 2");
        check("", "not a gossip exchange");
        check("[1]", "not a gossip exchange");
        let many = vec![Relayed { heard_ms_ago: 0, member: member(1) }; NODES_MAX + 1];
        let exchange = Exchange::new(NodeId(Guid([1; 16])), Guid([9; 16]), many);
        check(&String::from_utf8(exchange.encode()).unwrap(), "65 nodes, more than the 64");
    }

    #[test]
    fn the_largest_exchange_fits_its_bound() {
        let full = |n: u8| {
            let mut member = member(n);
            let mut list = member.membership.clone().unwrap();
            list.members = vec![member.record(); CLUSTER_SIZE_MAX];
            member.accepted_founding = Some(list.clone());
            member.membership = Some(list);
            member.ext_advertise = vec![longest_rule(); ADVERTISE_RULES_MAX];
            member
        };
        let nodes = (0..NODES_MAX).map(|n| Relayed { heard_ms_ago: u64::MAX, member: full(n as u8) }).collect();
        let exchange = Exchange::new(NodeId(Guid([1; 16])), Guid([9; 16]), nodes);
        assert!(exchange.encode().len() <= EXCHANGE_MAX_BYTES, "{}", exchange.encode().len());
    }
}
