//! A small blocking client of the same wire, for what happens before and after a run: preparing a stream, and reading
//! back what was acknowledged.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::slots::Correlation;
use crate::wire;
use crate::wire::NotHandled;

const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 256 * 1024;
const GREETING: u32 = u32::MAX;

/// One connection, authenticated.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Of the buffer, taken already.
    used: usize,
}

impl Client {
    /// # Errors
    /// When the node does not accept, or refuses the user.
    pub(crate) fn connect(address: SocketAddr, user: &(String, String)) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)
            .with_context(|| format!("no connection to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        let mut client = Self { stream, buffer: Vec::new(), used: 0 };
        let mut out = Vec::new();
        wire::authenticate(&mut out, Correlation { slot: GREETING, generation: 0 }, &user.0, &user.1);
        client.stream.write_all(&out)?;
        client.receive(|command, _, payload| match command {
            wire::AUTHENTICATED => Ok(()),
            _ => bail!("{address} refused user `{}`: {}", user.0, String::from_utf8_lossy(payload)),
        })?;
        Ok(client)
    }

    /// Sends `count` requests with at most `window` of them on the way. `encode` appends request `n`; `take` gets its
    /// answer's command and payload.
    ///
    /// # Errors
    /// When the connection fails, the node does not handle a request, or `take` gives an error.
    pub(crate) fn exchange(
        &mut self,
        count: usize,
        window: usize,
        mut encode: impl FnMut(usize, Correlation, &mut Vec<u8>),
        mut take: impl FnMut(usize, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (mut sent, mut answered) = (0, 0);
        let mut out = Vec::new();
        while answered < count {
            out.clear();
            while sent < count && sent - answered < window {
                encode(sent, Correlation { slot: sent as u32, generation: 0 }, &mut out);
                sent += 1;
            }
            self.stream.write_all(&out)?;
            self.receive(|command, correlation, payload| {
                let number = correlation.map_or(usize::MAX, |correlation| correlation.slot as usize);
                match command {
                    wire::NOT_HANDLED => bail!("the node does not handle requests now (reason {})", reason(payload)),
                    wire::BAD_REQUEST | wire::NOT_AUTHENTICATED => {
                        bail!("the node refused a request: {}", String::from_utf8_lossy(payload))
                    }
                    _ => ensure!(number < sent, "an answer to nothing, command {command:#x}"),
                }
                take(number, payload)
            })?;
            answered += 1;
        }
        Ok(())
    }

    /// The next package that is no heartbeat.
    fn receive(
        &mut self,
        take: impl FnOnce(u8, Option<Correlation>, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let package = wire::package(&self.buffer[self.used..])
                .map_err(|error| anyhow::anyhow!("the node sent {}", error.0))?;
            if let Some((package, length)) = package {
                self.used += length;
                if package.command != wire::HEARTBEAT_REQUEST {
                    return take(package.command, Correlation::from_bytes(package.correlation), package.payload);
                }
                let mut out = Vec::new();
                wire::frame(&mut out, wire::HEARTBEAT_RESPONSE, &package.correlation, |_| {});
                self.stream.write_all(&out)?;
                continue;
            }
            ensure!(start.elapsed() < ANSWER_LIMIT, "no answer within {} s", ANSWER_LIMIT.as_secs());
            self.buffer.drain(..std::mem::take(&mut self.used));
            let filled = self.buffer.len();
            self.buffer.resize(filled + READ_BYTES, 0);
            let received = self.stream.read(&mut self.buffer[filled..]);
            self.buffer.truncate(filled + received.as_ref().unwrap_or(&0));
            ensure!(received.context("no answer")? != 0, "the node closed the connection");
        }
    }
}

fn reason(payload: &[u8]) -> u64 {
    NotHandled::parse(payload).map_or(0, |answer| answer.reason)
}
