//! Every frame that passes a bridge, looked at in the bridge's own namespace: a packet socket there sees what its ports take
//! in and give out, so each frame twice.

use std::fmt;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::support::wires;

/// All protocols, as the kernel wants it.
const EVERYTHING: u16 = 0x0003;

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// Router and neighbour solicitations and advertisements, and redirects.
const NEIGHBOUR_DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;

/// Frames wait here while this program is not on a processor.
const BUFFER_BYTES: usize = 256 << 20;

/// How long a read waits before it is asked whether it still should.
const SLICE: Duration = Duration::from_millis(50);

/// Frames that must not be and are kept.
const FOUND_MAX: usize = 10;

/// A frame, as far as it is of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    Arp {
        sender: Ipv4Addr,
        target: Ipv4Addr,
    },
    Ip {
        source: Ipv4Addr,
        destination: Ipv4Addr,
        ports: Option<(u16, u16)>,
        segment: &'a [u8],
    },
    /// IPv6 neighbour discovery: IPv6 is off in all namespaces, but not every kernel can be told so.
    Neighbours,
    Other {
        kind: u16,
    },
}

impl Frame<'_> {
    /// Reads the head of a frame, which may be cut off behind it.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Frame<'_>> {
        let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        let address =
            |at: usize| bytes.get(at..at + 4).and_then(|four| <[u8; 4]>::try_from(four).ok()).map(Ipv4Addr::from);
        match word(12)? {
            ARP => Some(Frame::Arp { sender: address(28)?, target: address(38)? }),
            IPV4 => {
                let head = usize::from(bytes.get(14)? & 15) * 4;
                let has_ports = [TCP, UDP].contains(bytes.get(23)?);
                let ports = word(14 + head).zip(word(16 + head)).filter(|_| has_ports);
                // Short frames may be padded; those that are too long for the field say zero.
                let end = 14 + usize::from(word(16)?);
                let end = if end > 14 + head { end.min(bytes.len()) } else { bytes.len() };
                let segment = bytes.get(14 + head..end).unwrap_or_default();
                Some(Frame::Ip { source: address(26)?, destination: address(30)?, ports, segment })
            }
            IPV6 if *bytes.get(20)? == ICMPV6 && NEIGHBOUR_DISCOVERY.contains(bytes.get(54)?) => {
                Some(Frame::Neighbours)
            }
            kind => Some(Frame::Other { kind }),
        }
    }

    pub(crate) fn addresses(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        match self {
            Frame::Arp { sender, target } => Some((*sender, *target)),
            Frame::Ip { source, destination, .. } => Some((*source, *destination)),
            Frame::Neighbours | Frame::Other { .. } => None,
        }
    }
}

impl fmt::Display for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Frame::Arp { sender, target } => write!(f, "{sender} asks for {target}"),
            Frame::Ip { source, destination, ports: Some((from, to)), .. } => {
                write!(f, "{source}:{from} to {destination}:{to}")
            }
            Frame::Ip { source, destination, .. } => write!(f, "{source} to {destination}"),
            Frame::Neighbours => f.write_str("IPv6 neighbour discovery"),
            Frame::Other { kind } => write!(f, "a frame of the kind {kind:#06x}"),
        }
    }
}

/// A socket that sees everything in its namespace.
#[derive(Debug)]
pub(crate) struct Tap(OwnedFd);

impl Tap {
    pub(crate) fn open(namespace: &str) -> anyhow::Result<Tap> {
        let made = wires::inside(namespace, || -> anyhow::Result<Socket> {
            let everything = Protocol::from(i32::from(EVERYTHING.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(everything)).context("a packet socket")?;
            socket.set_read_timeout(Some(SLICE))?;
            sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES)?;
            Ok(socket)
        });
        Ok(Tap(OwnedFd::from(made??)))
    }

    /// The next frame, cut to the length of `buffer`, and how long it was; `None` when none comes for a while or, when
    /// nobody waits, when none is there.
    pub(crate) fn next<'a>(&self, buffer: &'a mut [u8], wait: bool) -> anyhow::Result<Option<(&'a [u8], usize)>> {
        let flags = if wait { RecvFlags::TRUNC } else { RecvFlags::TRUNC | RecvFlags::DONTWAIT };
        match recv(&self.0, &mut *buffer, flags) {
            Ok((count, length)) => Ok(Some((&buffer[..count], length))),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            // An interface was switched off.
            Err(Errno::NETDOWN) => Ok(None),
            Err(error) => Err(error).context("reading a packet socket"),
        }
    }

    /// Frames that the kernel had no room for, since this was asked the last time.
    #[expect(unsafe_code, reason = "no crate here has this socket option")]
    fn drops(&self) -> anyhow::Result<u32> {
        // `struct tpacket_stats`: packets, drops.
        let mut counts = [0u32; 2];
        let mut length = libc::socklen_t::try_from(size_of_val(&counts))?;
        // SAFETY: the kernel writes at most `length` bytes to `counts`, which has as many and lives until it returns.
        let result = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                counts.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        ensure!(result == 0, "asking a packet socket for its drops: {}", std::io::Error::last_os_error());
        Ok(counts[1])
    }
}

/// What is wrong with a frame: what `judge` says, and whatever nobody here has a reason to send.
fn complaint(bytes: &[u8], judge: impl Fn(&Frame<'_>) -> Option<&'static str>) -> Option<String> {
    match Frame::parse(bytes) {
        None => Some(format!("a frame that cannot be read: {bytes:02x?}")),
        Some(frame @ Frame::Other { .. }) => Some(format!("{frame}: nobody here speaks that")),
        Some(Frame::Neighbours) => None,
        Some(frame) => judge(&frame).map(|why| format!("{frame}: {why}")),
    }
}

/// Frames of kinds that are no traffic of this test must be complained about, those that keep a network going must not.
pub(crate) fn self_test() -> anyhow::Result<()> {
    let frame = |kind: u16, more: &[(usize, u8)]| {
        let mut bytes = vec![0; 80];
        bytes[12..14].copy_from_slice(&kind.to_be_bytes());
        bytes[14] = 0x45;
        more.iter().for_each(|(at, byte)| bytes[*at] = *byte);
        bytes
    };
    let (vlan, ipv6_tcp) = (frame(0x8100, &[]), frame(IPV6, &[(20, TCP)]));
    for bytes in [&vlan[..], &ipv6_tcp, &vlan[..13], &frame(IPV4, &[])[..20]] {
        ensure!(complaint(bytes, |_| None).is_some(), "nothing is said about {bytes:02x?}");
    }
    let solicitation = frame(IPV6, &[(20, ICMPV6), (54, 135)]);
    for bytes in [frame(ARP, &[]), frame(IPV4, &[]), solicitation] {
        ensure!(complaint(&bytes, |_| None).is_none(), "{:?}", complaint(&bytes, |_| None));
    }
    Ok(())
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    /// Those that must not be, and the first of them.
    pub(crate) wrong: u64,
    pub(crate) first_wrong: Vec<String>,
}

/// Looks at all frames until it is stopped.
#[derive(Debug)]
pub(crate) struct Capture {
    stop: Arc<AtomicBool>,
    wrong: Arc<AtomicU64>,
    thread: JoinHandle<anyhow::Result<Seen>>,
}

impl Capture {
    /// `judge` says what is wrong with a frame.
    pub(crate) fn start(
        namespace: &str,
        judge: impl Fn(&Frame<'_>) -> Option<&'static str> + Send + 'static,
    ) -> anyhow::Result<Capture> {
        let tap = Tap::open(namespace)?;
        let stop = Arc::new(AtomicBool::new(false));
        let wrong = Arc::new(AtomicU64::new(0));
        let (is_over, wrong_so_far) = (Arc::clone(&stop), Arc::clone(&wrong));
        let thread = std::thread::spawn(move || {
            let (mut seen, mut buffer) = (Seen::default(), [0; 128]);
            loop {
                let over = is_over.load(Ordering::Relaxed);
                let Some((bytes, length)) = tap.next(&mut buffer, !over)? else {
                    // All that waited has been looked at.
                    if over {
                        let drops = tap.drops()?;
                        ensure!(drops == 0, "the kernel had no room for {drops} frames: nothing is known of them");
                        return Ok(seen);
                    }
                    continue;
                };
                seen.frames += 1;
                seen.bytes += length as u64;
                if let Some(what) = complaint(bytes, &judge) {
                    seen.wrong += 1;
                    wrong_so_far.store(seen.wrong, Ordering::Relaxed);
                    if seen.first_wrong.len() < FOUND_MAX {
                        seen.first_wrong.push(what);
                    }
                }
            }
        });
        Ok(Capture { stop, wrong, thread })
    }

    /// Frames so far that must not be.
    pub(crate) fn wrong(&self) -> u64 {
        self.wrong.load(Ordering::Relaxed)
    }

    pub(crate) fn stop(self) -> anyhow::Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a capture")
    }
}
