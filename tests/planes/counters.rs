//! What the ports of both bridges have counted.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde_json::Value;

use crate::support::shell;
use crate::support::wires::{Plane, Wires};

/// Bytes through one cable.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cable {
    pub(crate) from_host: u64,
    pub(crate) to_host: u64,
}

/// The cables of one plane, by host.
#[derive(Clone, Debug)]
pub(crate) struct Counters(BTreeMap<usize, Cable>);

impl Counters {
    /// What was counted so far for these hosts.
    pub(crate) fn read(wires: &Wires, plane: Plane, hosts: &[usize]) -> anyhow::Result<Counters> {
        let text = shell::run(&["ip", "-n", &wires.hub(plane), "-s", "-j", "link", "show"])?;
        let links: Value = serde_json::from_str(&text).context("the answer of ip -s -j link")?;
        let mut cables = BTreeMap::new();
        for host in hosts {
            let name = Wires::port(plane, *host);
            let link = links.as_array().into_iter().flatten().find(|link| link["ifname"] == name.as_str());
            let bytes = |way: &str| link.and_then(|link| link["stats64"][way]["bytes"].as_u64());
            // The bridge receives what the host sends.
            let (from_host, to_host) =
                bytes("rx").zip(bytes("tx")).with_context(|| format!("no counters of {name}"))?;
            cables.insert(*host, Cable { from_host, to_host });
        }
        Ok(Counters(cables))
    }

    /// What came since `earlier`.
    pub(crate) fn since(&self, earlier: &Counters) -> Counters {
        let grown = self.0.iter().map(|(host, now)| {
            let before = earlier.0.get(host).copied().unwrap_or_default();
            let (from_host, to_host) = (now.from_host - before.from_host, now.to_host - before.to_host);
            (*host, Cable { from_host, to_host })
        });
        Counters(grown.collect())
    }

    pub(crate) fn of(&self, host: usize) -> Cable {
        self.0.get(&host).copied().unwrap_or_default()
    }

    /// What these hosts sent.
    pub(crate) fn sent_by(&self, hosts: std::ops::Range<usize>) -> u64 {
        hosts.map(|host| self.of(host).from_host).sum()
    }
}
