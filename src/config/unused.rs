//! Options that are set and do nothing, because of what others say: one table, one warning for each.
//!
//! Who sets one of these means to have what it says. What is missing is an error elsewhere; here nothing is.

use crate::config::check::Checked;
use crate::config::settings::Config;
use crate::config::table::{self, Kind};
use crate::config::values::Values;

/// A row: when it does something, and the words for when it does not.
struct Rule {
    option: &'static str,
    is_used: fn(Values<'_>, &Config) -> bool,
    /// Behind "OPTION is VALUE, but".
    why: &'static str,
    next: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        option: "UnsafeOpenInternalPlane",
        is_used: |_, config| !config.is_internal_closed(),
        why: "the internal plane is closed, by UseInternalSsl or ClusterSecretFile",
        next: "remove it: it would open the plane on the day that those are taken out",
    },
    Rule {
        option: "UnsafeOpenInternalPlane",
        is_used: |_, config| config.is_internal_closed() || !config.int_ip.to_canonical().is_loopback(),
        why: "IntIp is a loopback address, which needs no such permission",
        next: "remove it: it would open the plane on the day that IntIp changes",
    },
    Rule {
        option: "IntSecureTcpPort",
        is_used: |_, config| has_internal_tls(config),
        why: "is not opened: UseInternalSsl is false, so nodes connect to IntTcpPort without TLS",
        next: "set UseInternalSsl on all nodes, or remove it",
    },
    Rule {
        option: "IntSecureTcpPortAdvertiseAs",
        is_used: |_, config| has_internal_tls(config) && config.security.int_tcp_port != 0,
        why: "is told to nobody: that takes UseInternalSsl and an IntSecureTcpPort",
        next: "set both, or IntTcpPortAdvertiseAs instead",
    },
    Rule {
        option: "IntTcpPortAdvertiseAs",
        is_used: |_, config| !has_internal_tls(config) || config.security.int_tcp_port == 0,
        why: "is told to nobody: IntSecureTcpPort is used instead of IntTcpPort",
        next: "set IntSecureTcpPortAdvertiseAs instead",
    },
    Rule {
        option: "CertificateFile",
        is_used: |_, config| has_internal_tls(config) || config.security.external.is_some(),
        why: "nothing uses it",
        next: "set UseInternalSsl, ExtSecureTcpPort or ExtSecureHttpPort, or remove it",
    },
    Rule {
        option: "CertificatePrivateKeyFile",
        is_used: |values, _| is_set(values, "CertificateFile"),
        why: "there is no CertificateFile that it is the key of, and nothing uses it",
        next: "set CertificateFile and what uses it, or remove it",
    },
    Rule {
        option: "CertificateAuthorityFile",
        is_used: |_, config| has_internal_tls(config),
        why: "nothing uses it, so nobody's certificate is asked for: UseInternalSsl is false",
        next: "set UseInternalSsl on all nodes, or remove it",
    },
    Rule {
        option: "SslTargetHost",
        is_used: |_, config| has_internal_tls(config),
        why: "nothing uses it: UseInternalSsl is false",
        next: "set UseInternalSsl on all nodes, or remove it",
    },
    Rule {
        option: "ExtSecureTcpPortAdvertiseAs",
        is_used: |_, config| config.security.ext_tcp_port.is_some(),
        why: "is told to nobody: there is no ExtSecureTcpPort",
        next: "set ExtSecureTcpPort, or remove it",
    },
    Rule {
        option: "ExtTcpPortAdvertiseAs",
        is_used: |_, config| !config.security.is_plain_tcp_off,
        why: "is told to nobody: with DisableInsecureTCP clients are told the port with TLS only",
        next: "set ExtSecureTcpPortAdvertiseAs instead, or remove it",
    },
    Rule {
        option: "ExtCpus",
        is_used: |_, config| config.edge_threads == 0 || config.edge_threads >= config.ext_cpus.len(),
        why: "EdgeThreads is lower than their number, so some of them stay idle",
        next: "set EdgeThreads to 0, which is one thread for each of them, or name fewer",
    },
];

fn has_internal_tls(config: &Config) -> bool {
    config.security.internal.identity.is_some()
}

/// True when the operator says something else than "none".
fn is_set(values: Values<'_>, name: &str) -> bool {
    let spec = table::find(name).unwrap_or_else(|| panic!("the table has no option {name}"));
    match spec.kind {
        // What is no switch or port has been refused before.
        Kind::Switch => values.switch(name).unwrap_or(false),
        Kind::Port => values.port(name).is_ok_and(|port| port != 0),
        _ => !values.text(name).is_empty() && values.text(name) != spec.default,
    }
}

/// A warning for each option that is set and has no effect.
pub(super) fn warn(values: Values<'_>, checked: &mut Checked) {
    for rule in RULES {
        if is_set(values, rule.option) && !(rule.is_used)(values, &checked.config) {
            let (option, value) = (rule.option, values.text(rule.option));
            checked.warnings.push(format!("{option} is \"{value}\", but {}; {}", rule.why, rule.next));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::OsString;

    use super::*;
    use crate::config::{Outcome, load};

    fn warnings(arguments: &str) -> Vec<String> {
        let none: [(OsString, OsString); 0] = [];
        let words = arguments.split_whitespace().map(OsString::from);
        match load(words, none, |_| Err(std::io::ErrorKind::NotFound.into())).unwrap() {
            Outcome::Run(loaded) => loaded.warnings,
            Outcome::Help(_) | Outcome::Version(_) => unreachable!("not asked for"),
        }
    }

    const PAIR: &str = "--certificate-file /c --certificate-private-key-file /k";
    const TLS: &str =
        "--use-internal-ssl --certificate-file /c --certificate-private-key-file /k --certificate-authority-file /a";

    /// What is without effect, its words, and the same with what it needs.
    fn cases() -> Vec<(&'static str, String, &'static str, String)> {
        let tls = |more: &str| format!("{TLS} {more}");
        vec![
            (
                "UnsafeOpenInternalPlane",
                "--int-ip 10.0.0.1 --cluster-secret-file /s --unsafe-open-internal-plane".to_owned(),
                "the internal plane is closed",
                "--int-ip 10.0.0.1 --cluster-secret-file /s --unsafe-open-internal-plane false".to_owned(),
            ),
            ("UnsafeOpenInternalPlane", "--unsafe-open-internal-plane".to_owned(), "loopback address", String::new()),
            (
                "IntSecureTcpPort",
                "--int-secure-tcp-port 1115".to_owned(),
                "UseInternalSsl is false",
                tls("--int-secure-tcp-port 1115"),
            ),
            (
                "IntSecureTcpPortAdvertiseAs",
                tls("--int-secure-tcp-port-advertise-as 9"),
                "an IntSecureTcpPort",
                tls("--int-secure-tcp-port 1115 --int-secure-tcp-port-advertise-as 9"),
            ),
            (
                "IntTcpPortAdvertiseAs",
                tls("--int-secure-tcp-port 1115 --int-tcp-port-advertise-as 9"),
                "IntSecureTcpPort is used",
                tls("--int-tcp-port-advertise-as 9"),
            ),
            ("CertificateFile", PAIR.to_owned(), "nothing uses it", format!("{PAIR} --ext-secure-http-port 2114")),
            (
                "CertificatePrivateKeyFile",
                "--certificate-private-key-file /k".to_owned(),
                "no CertificateFile",
                format!("{PAIR} --ext-secure-tcp-port 1116"),
            ),
            (
                "CertificateAuthorityFile",
                "--certificate-authority-file /a".to_owned(),
                "UseInternalSsl is false",
                tls(""),
            ),
            ("SslTargetHost", "--ssl-target-host a.b".to_owned(), "UseInternalSsl", tls("--ssl-target-host a.b")),
            (
                "ExtSecureTcpPortAdvertiseAs",
                format!("{PAIR} --ext-secure-http-port 2114 --ext-secure-tcp-port-advertise-as 9"),
                "there is no ExtSecureTcpPort",
                format!("{PAIR} --ext-secure-tcp-port 1116 --ext-secure-tcp-port-advertise-as 9"),
            ),
            (
                "ExtTcpPortAdvertiseAs",
                format!("{PAIR} --ext-secure-tcp-port 1116 --disable-insecure-tcp --ext-tcp-port-advertise-as 9"),
                "DisableInsecureTCP",
                format!("{PAIR} --ext-secure-tcp-port 1116 --ext-tcp-port-advertise-as 9"),
            ),
            ("ExtCpus", "--ext-cpus 4-7".to_owned(), "EdgeThreads", "--ext-cpus 4-7 --edge-threads 0".to_owned()),
        ]
    }

    #[test]
    fn each_row_warns_by_itself_and_only_where_it_holds() {
        for (option, unused, word, used) in cases() {
            let found = warnings(&unused);
            assert_eq!(found.len(), 1, "{unused}: {found:?}");
            assert!(found[0].starts_with(&format!("{option} is \"")) && found[0].contains(word), "{found:?}");
            assert!(found[0].contains("; "), "the next step: {found:?}");
            assert_eq!(warnings(&used), Vec::<String>::new(), "{used}");
        }
        let tested: BTreeSet<&str> = cases().iter().map(|case| case.0).collect();
        assert_eq!(tested, RULES.iter().map(|rule| rule.option).collect(), "each row has a case");
    }
}
