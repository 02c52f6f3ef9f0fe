//! Bytes that mean nothing, on each of the four ports of a cluster's leader: nobody else notices.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::single::{connect, write};
use crate::support::client::{ANY, event};
use crate::support::cluster::{Cluster, scratch, small_chunks};

/// Random bytes, true beginnings with false ends, and lengths that no one has.
fn pieces(random: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    let mut pieces: Vec<Vec<u8>> =
        (0..20).map(|_| (0..random.usize(1..5_000)).map(|_| random.u8(..)).collect()).collect();
    for length in [0_u32, 1, 17, 18, 0x7FFF_FFFF, 0x8000_0000, u32::MAX, (64 << 20) + 1] {
        pieces.push([&length.to_le_bytes()[..], &[0x82; 40]].concat());
    }
    // Every command with a payload that is no message of its kind.
    for command in 0..=255_u8 {
        let mut frame = 30_u32.to_le_bytes().to_vec();
        frame.extend([command, random.u8(..2)]);
        frame.extend((0..28).map(|_| random.u8(..)));
        pieces.push(frame);
    }
    for text in [
        "GET / HTTP/1.1\r\n",
        "GET /gossip HTTP/9.9\r\n\r\n",
        "POST /gossip HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
        "POST /gossip HTTP/1.1\r\nContent-Length: 2\r\n\r\n{]",
        "POST /elections/vote HTTP/1.1\r\nContent-Length: 9\r\n\r\n{\"term\":1",
        "POST /elections/vote HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
        "\r\n\r\n\r\n",
    ] {
        pieces.push(text.as_bytes().to_vec());
    }
    pieces.push([b"GET /".to_vec(), vec![b'a'; 1 << 20]].concat());
    pieces.push([b"GET / HTTP/1.1\r\n".to_vec(), b"A: b\r\n".repeat(100_000)].concat());
    pieces
}

/// Sends the bytes, reads what comes back for a moment, and leaves. Errors are the point, not a failure.
fn throw(address: SocketAddr, bytes: &[u8]) {
    let Ok(mut socket) = TcpStream::connect_timeout(&address, Duration::from_secs(5)) else {
        panic!("{address} does not accept any more");
    };
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    socket.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(Shutdown::Write);
    let _ = socket.read(&mut [0; 4096]);
}

#[test]
fn garbage_on_any_port_does_no_harm() {
    let seed = fastrand::u64(..);
    println!("garbage: seed {seed}");
    let folder = scratch("garbage");
    let cluster = Cluster::start(&folder, &small_chunks(4 << 20)).unwrap();
    let leader = cluster.leader().unwrap();
    let node = &cluster.nodes[leader];
    let term = node.figures().unwrap().term;
    let mut client = connect(node);
    let mut written = 0;
    let pieces = pieces(&mut fastrand::Rng::with_seed(seed));
    for address in [node.int_tcp(), node.ext_tcp(), node.int_http(), node.ext_http()] {
        for (index, bytes) in pieces.iter().enumerate() {
            throw(address, bytes);
            if index % 20 == 0 {
                let id = (u128::from(seed) << 64 | (written as u128 + 1)).to_le_bytes();
                write(&mut client, "through-garbage", ANY, vec![event(id, vec![1])])
                    .unwrap_or_else(|refusal| panic!("{address}, piece {index}: {refusal}\n{}", cluster.tails()));
                written += 1;
            }
        }
    }
    // The very connection and the very leader from before are still there, and so is everything that was written.
    assert_eq!(client.read_to_end("through-garbage").unwrap().len(), written);
    assert_eq!(node.figures().map(|figures| (figures.leads(), figures.term)), Some((true, term)));
    cluster.wait_until_whole().unwrap();
    drop(cluster);
    std::fs::remove_dir_all(folder).unwrap();
}
