//! What `ethtool` shows of a device: coalescing and channels, over generic netlink (ethtool-netlink of the kernel's
//! documentation, Linux 5.7). A captured host has the same fields as files.

use std::io;

use rustix::net::netlink::GENERIC;

use super::tree::{Target, Tree};
use crate::ring::netlink::{self, Message, Netlink};

/// The family that knows the numbers of the others.
const CONTROL_FAMILY: u16 = 0x10;
const CONTROL_GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// Command, version, reserved.
const HEADER_BYTES: usize = 4;
/// In each question: which device.
const DEVICE: u16 = 1;
const DEVICE_NAME: u16 = 2;

/// How a field's value is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// 32 bits.
    Number,
    /// Eight bits; "on" or "off".
    Switch,
}

/// A group of fields with its two commands; setting one is "get" plus one.
#[derive(Debug)]
struct Group {
    name: &'static str,
    get: u8,
    fields: &'static [(&'static str, u16, Form)],
}

const GROUPS: [Group; 2] = [
    Group {
        name: "channels",
        get: 17,
        fields: &[
            ("rx-max", 2, Form::Number),
            ("combined-max", 5, Form::Number),
            ("rx", 6, Form::Number),
            ("tx", 7, Form::Number),
            ("combined", 9, Form::Number),
        ],
    },
    Group {
        name: "coalesce",
        get: 19,
        fields: &[
            ("rx-usecs", 2, Form::Number),
            ("tx-usecs", 6, Form::Number),
            ("adaptive-rx", 11, Form::Switch),
            ("adaptive-tx", 12, Form::Switch),
        ],
    },
];

/// When the card interrupts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coalescing {
    /// Microseconds that a received packet may wait for others.
    pub rx_usecs: Option<u32>,
    /// The same for packets sent.
    pub tx_usecs: Option<u32>,
    /// The driver chooses the time itself.
    pub adaptive_rx: Option<bool>,
}

/// How many queues the card uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// Queues for both directions.
    pub combined: u32,
    /// Most of them.
    pub combined_max: u32,
}

/// A setting of a device as a target.
#[must_use]
pub(super) fn target(device: &str, group: &str, field: &str) -> Target {
    Target::Ethtool { device: device.to_owned(), group: group.to_owned(), field: field.to_owned() }
}

impl Coalescing {
    /// None where the driver has nothing to show.
    pub(super) fn read(tree: &Tree, device: &str) -> Option<Coalescing> {
        let text = |field: &str| tree.value(&target(device, "coalesce", field)).ok().map(|text| text.trim().to_owned());
        let coalescing = Coalescing {
            rx_usecs: text("rx-usecs").and_then(|text| text.parse().ok()),
            tx_usecs: text("tx-usecs").and_then(|text| text.parse().ok()),
            adaptive_rx: text("adaptive-rx").map(|text| text == "on"),
        };
        Some(coalescing).filter(|coalescing| *coalescing != Coalescing::default())
    }
}

impl Channels {
    /// None where the driver has nothing to show, or no combined channels.
    pub(super) fn read(tree: &Tree, device: &str) -> Option<Channels> {
        let number = |field: &str| tree.value(&target(device, "channels", field)).ok()?.trim().parse().ok();
        let channels = Channels { combined: number("combined")?, combined_max: number("combined-max")? };
        Some(channels).filter(|channels| channels.combined > 0)
    }
}

/// A field of a device of this host.
pub(super) fn read_field(device: &str, group: &str, field: &str) -> io::Result<String> {
    let (group, number, form) = find(group, field)?;
    let answer = ask(family()?, &question(group.get, device))?;
    let shown = answer.iter().find_map(|message| shown(&message.body, number, form));
    shown.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{device} does not show {field}")))
}

/// Changes a field of a device of this host.
pub(super) fn write_field(device: &str, group: &str, field: &str, value: &str) -> io::Result<()> {
    let (group, number, form) = find(group, field)?;
    let value = value.trim();
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, format!("{field} cannot be \"{value}\""));
    let mut body = question(group.get + 1, device);
    match (form, value) {
        (Form::Switch, "on") => netlink::put(&mut body, number, &[1]),
        (Form::Switch, "off") => netlink::put(&mut body, number, &[0]),
        (Form::Switch, _) => return Err(invalid()),
        (Form::Number, text) => {
            netlink::put(&mut body, number, &netlink::number(text.parse().map_err(|_| invalid())?));
        }
    }
    ask(family()?, &body).map(drop)
}

fn ask(family: u16, body: &[u8]) -> io::Result<Vec<Message>> {
    Netlink::open(Some(GENERIC))?.ask(family, 0, body)
}

fn find(group: &str, field: &str) -> io::Result<(&'static Group, u16, Form)> {
    let unknown = || io::Error::new(io::ErrorKind::InvalidInput, format!("{group} {field} is not known"));
    let group = GROUPS.iter().find(|known| known.name == group).ok_or_else(unknown)?;
    let (_, number, form) = group.fields.iter().find(|(name, ..)| *name == field).ok_or_else(unknown)?;
    Ok((group, *number, *form))
}

fn question(command: u8, device: &str) -> Vec<u8> {
    let mut name = device.as_bytes().to_vec();
    name.push(0);
    let mut inner = Vec::new();
    netlink::put(&mut inner, DEVICE_NAME, &name);
    let mut body = vec![command, 1, 0, 0];
    netlink::put(&mut body, DEVICE | netlink::NESTED, &inner);
    body
}

fn shown(body: &[u8], number: u16, form: Form) -> Option<String> {
    let value = netlink::attribute(body.get(HEADER_BYTES..)?, number)?;
    match form {
        Form::Number => netlink::word(value).map(|number| number.to_string()),
        Form::Switch => value.first().map(|bit| if *bit == 0 { "off" } else { "on" }.to_owned()),
    }
}

/// The number that the kernel gave to ethtool's family.
fn family() -> io::Result<u16> {
    let mut body = vec![CONTROL_GET_FAMILY, 1, 0, 0];
    netlink::put(&mut body, FAMILY_NAME, b"ethtool\0");
    let answer = ask(CONTROL_FAMILY, &body)?;
    let id = |body: &[u8]| netlink::half(netlink::attribute(body.get(HEADER_BYTES..)?, FAMILY_ID)?);
    let missing = || io::Error::new(io::ErrorKind::Unsupported, "the kernel has no ethtool over netlink");
    answer.iter().find_map(|message| id(&message.body)).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_by_field() {
        let mut body = vec![19, 1, 0, 0];
        netlink::put(&mut body, 2, &netlink::number(8));
        netlink::put(&mut body, 11, &[1]);
        assert_eq!(shown(&body, 2, Form::Number).as_deref(), Some("8"));
        assert_eq!(shown(&body, 11, Form::Switch).as_deref(), Some("on"));
        assert_eq!(shown(&body, 6, Form::Number), None);
        assert_eq!(shown(&[1], 6, Form::Number), None);
        assert!(find("coalesce", "rx-usecs").is_ok() && find("coalesce", "combined").is_err());
    }

    #[test]
    fn a_question_names_the_device() {
        let body = question(19, "lo");
        let attributes = netlink::attributes(&body[HEADER_BYTES..]);
        assert_eq!(attributes[0].0, DEVICE);
        assert_eq!(netlink::attributes(attributes[0].1), [(DEVICE_NAME, &b"lo\0"[..])]);
    }

    #[test]
    fn a_captured_card_shows_both() {
        let (_folder, tree) = crate::machine::testing::unpack("two_cards");
        let coalescing = Coalescing::read(&tree, "ens1f0np0").unwrap();
        assert_eq!((coalescing.rx_usecs, coalescing.adaptive_rx), (Some(64), Some(true)));
        assert_eq!(Channels::read(&tree, "ens1f0np0"), Some(Channels { combined: 4, combined_max: 8 }));
        assert_eq!((Coalescing::read(&tree, "lo"), Channels::read(&tree, "lo")), (None, None));
    }

    /// The kernel answers a question about the loopback device, if only that it has no such thing.
    #[test]
    fn this_kernel_is_asked() {
        let error = read_field("lo", "coalesce", "rx-usecs").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(95), "{error}");
    }
}
