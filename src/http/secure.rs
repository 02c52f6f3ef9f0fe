//! A connection of monoio that is plain or TLS: whoever reads and writes need not know which.
//!
//! Promises: a plain connection is passed through, for the price of one branch; memory is bounded by what is asked for and
//! one TLS record. Leaves to others: how long anything may take, and what is said on the connection.
//!
//! Errors of TLS come as [`io::Error`] with the [`TlsError`] inside: their words are the text of the error.
//!
//! On a connection that is split, only the write half sends. What TLS wants to send because of what was read (an alert)
//! goes with the next write, or at [`SecureWriteHalf::cancelable_shutdown`].

use std::cell::RefCell;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::rc::Rc;

use monoio::BufResult;
use monoio::buf::{IoBuf, IoBufMut, IoVecBuf, IoVecBufMut};
use monoio::io::{
    AsyncReadRent, AsyncWriteRent, CancelHandle, CancelableAsyncReadRent, CancelableAsyncWriteRent, Splitable,
};
use monoio::net::TcpStream;
use monoio::net::tcp::{TcpOwnedReadHalf, TcpOwnedWriteHalf};

use crate::ring::{rented, rented_first};
use crate::security::{PeerNames, TlsChannel, TlsError};

/// Most that one write seals: a larger one is done in parts, so that nobody holds it twice.
const WRITE_MAX_BYTES: usize = 64 << 10;

/// A buffer for sealed bytes that has grown beyond this is given back after use.
const KEEP_BYTES: usize = 4 << 10;

/// Room for received bytes of TLS, whoever asks for however much.
const RECEIVE_LEAST_BYTES: usize = 512;
const RECEIVE_MOST_BYTES: usize = 64 << 10;

/// Why a connection does not come up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecureError {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The other side is not who it must be, or does not speak TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What is not on the wire: the channel, and what was opened and not read yet.
#[derive(Debug)]
struct Tls {
    channel: TlsChannel,
    plain: Vec<u8>,
    /// What lies before this was read.
    start: usize,
    /// Used again for sealed bytes.
    spare: Vec<u8>,
    /// A part of a record went out and its rest did not: nothing that follows would be understood.
    is_torn: bool,
}

impl Tls {
    fn new(channel: TlsChannel, plain: Vec<u8>) -> Rc<RefCell<Tls>> {
        Rc::new(RefCell::new(Tls { channel, plain, start: 0, spare: Vec::new(), is_torn: false }))
    }

    fn has_plain(&self) -> bool {
        self.start < self.plain.len()
    }

    /// Takes the opened bytes out, for [`Tls::put_back`].
    fn take_plain(&mut self) -> (Vec<u8>, usize) {
        (mem::take(&mut self.plain), self.start)
    }

    fn put_back(&mut self, plain: Vec<u8>, start: usize) {
        (self.plain, self.start) = if start == plain.len() { (Vec::new(), 0) } else { (plain, start) };
    }

    fn receive(&mut self, cipher: &[u8]) -> io::Result<()> {
        self.channel.receive(cipher, &mut self.plain).map_err(in_io)
    }

    fn seal(&mut self, plain: &[u8]) -> io::Result<Vec<u8>> {
        if self.is_torn {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut cipher = mem::take(&mut self.spare);
        self.channel.seal(plain, &mut cipher).map_err(in_io)?;
        self.is_torn = true;
        Ok(cipher)
    }

    /// The handshake, an alert, or with `is_last` the goodbye.
    fn own_words(&mut self, is_last: bool) -> Vec<u8> {
        let mut cipher = mem::take(&mut self.spare);
        if self.is_torn {
            return cipher;
        }
        if is_last {
            self.channel.close(&mut cipher);
        } else {
            self.channel.take_handshake(&mut cipher);
        }
        self.is_torn = !cipher.is_empty();
        cipher
    }

    /// All of it went out.
    fn sent(&mut self, mut cipher: Vec<u8>) {
        self.is_torn = false;
        cipher.clear();
        self.spare = if cipher.capacity() <= KEEP_BYTES { cipher } else { Vec::new() };
    }
}

fn in_io(error: TlsError) -> io::Error {
    io::Error::other(error)
}

/// How much to receive for a reader that has so much room: what records add is on top.
fn receive_bytes(room: usize) -> usize {
    (room + room / 16 + 128).clamp(RECEIVE_LEAST_BYTES, RECEIVE_MOST_BYTES)
}

/// Receives until something was opened or the stream ends: `None` when there is plain text, else the end.
async fn open_more(
    tls: &RefCell<Tls>,
    room: usize,
    mut receive: impl AsyncFnMut(Vec<u8>) -> BufResult<usize, Vec<u8>>,
) -> Option<io::Result<()>> {
    let mut cipher = Vec::new();
    loop {
        if tls.borrow().has_plain() {
            return None;
        }
        if tls.borrow().channel.is_closed_by_peer() {
            return Some(Ok(()));
        }
        cipher.clear();
        cipher.reserve_exact(receive_bytes(room));
        let (result, received) = receive(cipher).await;
        cipher = received;
        match result {
            Ok(0) => return Some(tls.borrow().channel.ended().map_err(in_io)),
            Ok(_) => {}
            Err(error) => return Some(Err(error)),
        }
        let opened = tls.borrow_mut().receive(&cipher);
        // What was good before it is given first; the error comes again.
        if let Err(error) = opened
            && !tls.borrow().has_plain()
        {
            return Some(Err(error));
        }
    }
}

/// Gives what was opened.
async fn give<T: IoBufMut>(tls: &RefCell<Tls>, buffer: T) -> BufResult<usize, T> {
    let (plain, start) = tls.borrow_mut().take_plain();
    let mut rest = &plain[start..];
    let (result, buffer) = AsyncReadRent::read(&mut rest, buffer).await;
    let start = plain.len() - rest.len();
    tls.borrow_mut().put_back(plain, start);
    (result, buffer)
}

async fn read<T: IoBufMut>(
    tls: &RefCell<Tls>,
    mut buffer: T,
    receive: impl AsyncFnMut(Vec<u8>) -> BufResult<usize, Vec<u8>>,
) -> BufResult<usize, T> {
    match open_more(tls, buffer.bytes_total(), receive).await {
        None => give(tls, buffer).await,
        Some(end) => (end.map(|()| 0), buffer),
    }
}

/// Sends all of it with a call that may send a part.
async fn send_all(
    tls: &RefCell<Tls>,
    mut cipher: Vec<u8>,
    mut send: impl AsyncFnMut(monoio::buf::Slice<Vec<u8>>) -> BufResult<usize, monoio::buf::Slice<Vec<u8>>>,
) -> io::Result<()> {
    let (mut done, length) = (0, cipher.len());
    while done < length {
        let (result, slice) = send(cipher.slice(done..length)).await;
        cipher = slice.into_inner();
        match result {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    tls.borrow_mut().sent(cipher);
    Ok(())
}

/// Seals the beginning of `bytes`, at most [`WRITE_MAX_BYTES`]: how many, and what is to be sent.
fn seal_some(tls: &RefCell<Tls>, bytes: &[u8]) -> io::Result<(usize, Vec<u8>)> {
    let count = bytes.len().min(WRITE_MAX_BYTES);
    Ok((count, tls.borrow_mut().seal(&bytes[..count])?))
}

/// A plain or TLS connection.
#[derive(Debug)]
pub struct SecureStream {
    stream: TcpStream,
    tls: Option<Rc<RefCell<Tls>>>,
}

impl From<TcpStream> for SecureStream {
    fn from(stream: TcpStream) -> SecureStream {
        SecureStream { stream, tls: None }
    }
}

impl SecureStream {
    /// Does the handshake of `channel`; without one the connection is plain, and nothing happens. The caller bounds the time.
    /// On the side that dialled a refusal by the other side comes with the first read.
    ///
    /// # Errors
    /// When the connection fails, or the other side is not who it must be: it was told so.
    pub async fn establish(stream: TcpStream, channel: Option<TlsChannel>) -> Result<SecureStream, SecureError> {
        let tls = channel.map(|channel| Tls::new(channel, Vec::new()));
        let mut secure = SecureStream { stream, tls };
        let Some(tls) = secure.tls.clone() else { return Ok(secure) };
        loop {
            secure.send_own_words(&tls, false).await?;
            if tls.borrow().channel.is_established() {
                return Ok(secure);
            }
            let (result, cipher) = secure.stream.read(Vec::with_capacity(RECEIVE_LEAST_BYTES * 8)).await;
            if result? == 0 {
                tls.borrow().channel.ended()?;
            }
            let received = {
                let mut tls = tls.borrow_mut();
                let Tls { channel, plain, .. } = &mut *tls;
                channel.receive(&cipher, plain)
            };
            if let Err(error) = received {
                // It says why; if that does not arrive, nothing else is lost.
                let _ = secure.send_own_words(&tls, false).await;
                let _ = secure.stream.shutdown().await;
                return Err(error.into());
            }
        }
    }

    /// Of a channel whose handshake was done elsewhere; `plain` is what was opened there and not read.
    #[must_use]
    pub fn resume(stream: TcpStream, channel: TlsChannel, plain: Vec<u8>) -> SecureStream {
        SecureStream { stream, tls: Some(Tls::new(channel, plain)) }
    }

    /// True when what goes over the wire is TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// What the certificate of the other side says; `None` when it showed none.
    #[must_use]
    pub fn peer_names(&self) -> Option<PeerNames> {
        self.tls.as_ref().and_then(|tls| tls.borrow().channel.peer().cloned())
    }

    /// Where the other side is.
    ///
    /// # Errors
    /// When it is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// Whether small sends leave at once.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.stream.set_nodelay(nodelay)
    }

    /// For a task that reads and one that writes.
    #[must_use]
    pub fn into_split(self) -> (SecureReadHalf, SecureWriteHalf) {
        let (reader, writer) = self.stream.into_split();
        (SecureReadHalf { half: reader, tls: self.tls.clone() }, SecureWriteHalf { half: writer, tls: self.tls })
    }

    async fn send_own_words(&mut self, tls: &RefCell<Tls>, is_last: bool) -> io::Result<()> {
        let cipher = tls.borrow_mut().own_words(is_last);
        if cipher.is_empty() {
            tls.borrow_mut().spare = cipher;
            return Ok(());
        }
        send_all(tls, cipher, async |slice| self.stream.write(slice).await).await
    }

    /// After something was received: an alert, or the answer to a change of keys.
    async fn answer(&mut self, tls: &RefCell<Tls>) {
        if tls.borrow().channel.wants_send() {
            // If it cannot be sent the next read or write says so.
            let _ = self.send_own_words(tls, false).await;
        }
    }
}

impl AsyncReadRent for SecureStream {
    async fn read<T: IoBufMut>(&mut self, buffer: T) -> BufResult<usize, T> {
        let Some(tls) = self.tls.clone() else { return self.stream.read(buffer).await };
        let result = read(&tls, buffer, async |cipher| self.stream.read(cipher).await).await;
        self.answer(&tls).await;
        result
    }

    async fn readv<T: IoVecBufMut>(&mut self, buffers: T) -> BufResult<usize, T> {
        let Some(tls) = self.tls.clone() else { return self.stream.readv(buffers).await };
        let end = open_more(&tls, RECEIVE_MOST_BYTES, async |cipher| self.stream.read(cipher).await).await;
        self.answer(&tls).await;
        if let Some(end) = end {
            return (end.map(|()| 0), buffers);
        }
        let (plain, start) = tls.borrow_mut().take_plain();
        let mut rest = &plain[start..];
        let (result, buffers) = AsyncReadRent::readv(&mut rest, buffers).await;
        let start = plain.len() - rest.len();
        tls.borrow_mut().put_back(plain, start);
        (result, buffers)
    }
}

impl AsyncWriteRent for SecureStream {
    async fn write<T: IoBuf>(&mut self, buffer: T) -> BufResult<usize, T> {
        let Some(tls) = self.tls.clone() else { return self.stream.write(buffer).await };
        let result = match seal_some(&tls, rented(&buffer)) {
            Ok((count, cipher)) => {
                send_all(&tls, cipher, async |slice| self.stream.write(slice).await).await.map(|()| count)
            }
            Err(error) => Err(error),
        };
        (result, buffer)
    }

    async fn writev<T: IoVecBuf>(&mut self, buffers: T) -> BufResult<usize, T> {
        let Some(tls) = self.tls.clone() else { return self.stream.writev(buffers).await };
        let result = match seal_some(&tls, rented_first(&buffers)) {
            Ok((count, cipher)) => {
                send_all(&tls, cipher, async |slice| self.stream.write(slice).await).await.map(|()| count)
            }
            Err(error) => Err(error),
        };
        (result, buffers)
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.stream.flush().await
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        if let Some(tls) = self.tls.clone() {
            self.send_own_words(&tls, true).await?;
        }
        self.stream.shutdown().await
    }
}

/// The half that reads.
#[derive(Debug)]
pub struct SecureReadHalf {
    half: TcpOwnedReadHalf,
    tls: Option<Rc<RefCell<Tls>>>,
}

impl SecureReadHalf {
    /// Reads once; ends when `handle` is used.
    pub async fn cancelable_read<T: IoBufMut>(&mut self, buffer: T, handle: CancelHandle) -> BufResult<usize, T> {
        let Some(tls) = self.tls.clone() else { return self.half.cancelable_read(buffer, handle).await };
        read(&tls, buffer, async |cipher| self.half.cancelable_read(cipher, handle.clone()).await).await
    }
}

/// The half that writes.
#[derive(Debug)]
pub struct SecureWriteHalf {
    half: TcpOwnedWriteHalf,
    tls: Option<Rc<RefCell<Tls>>>,
}

impl SecureWriteHalf {
    /// Writes a part; ends when `handle` is used. With TLS nothing can be written after that.
    pub async fn cancelable_write<T: IoBuf>(&mut self, buffer: T, handle: CancelHandle) -> BufResult<usize, T> {
        let Some(tls) = self.tls.clone() else { return self.half.cancelable_write(buffer, handle).await };
        let result = match seal_some(&tls, rented(&buffer)) {
            Ok((count, cipher)) => {
                let send = async |slice| self.half.cancelable_write(slice, handle.clone()).await;
                send_all(&tls, cipher, send).await.map(|()| count)
            }
            Err(error) => Err(error),
        };
        (result, buffer)
    }

    /// Says that nothing more comes, with TLS also why.
    ///
    /// # Errors
    /// When the other side is gone, or `handle` was used.
    pub async fn cancelable_shutdown(&mut self, handle: CancelHandle) -> io::Result<()> {
        if let Some(tls) = self.tls.clone() {
            let cipher = tls.borrow_mut().own_words(true);
            let send = async |slice| self.half.cancelable_write(slice, handle.clone()).await;
            // A goodbye that does not arrive is one that was not said.
            let _ = send_all(&tls, cipher, send).await;
        }
        self.half.shutdown().await
    }

    /// Says that nothing more comes, without waiting for anything: with TLS the other side cannot be sure of it.
    ///
    /// # Errors
    /// When the other side is gone.
    pub async fn shutdown_now(&mut self) -> io::Result<()> {
        self.half.shutdown().await
    }
}

#[cfg(test)]
#[path = "secure_tests.rs"]
mod tests;
