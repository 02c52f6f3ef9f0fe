//! Two streams over loopback, plain and TLS.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use monoio::buf::VecBuf;
use monoio::io::{AsyncReadRentExt as _, AsyncWriteRentExt as _, Canceller};
use monoio::net::TcpListener;

use super::*;
use crate::security::Plane;
use crate::security::testing::TestCluster;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn run<F: Future>(future: F) -> F::Output {
    monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build().unwrap().block_on(future)
}

type Established = Result<SecureStream, SecureError>;

/// What comes of it on the side that dials and on the one that accepts.
async fn meet(dialler: &Plane, answerer: &Plane) -> (Established, Established) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let channel = answerer.accepted(LOCAL).unwrap();
    let accepting = monoio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        SecureStream::establish(stream, channel).await
    });
    let stream = TcpStream::connect(address).await.unwrap();
    let dialled = SecureStream::establish(stream, dialler.dialled(LOCAL).unwrap()).await;
    (dialled, accepting.await)
}

async fn good(plane: &Plane) -> (SecureStream, SecureStream) {
    let (dialled, accepted) = meet(plane, plane).await;
    (dialled.unwrap(), accepted.unwrap())
}

fn planes(certificates: &TestCluster) -> [Plane; 2] {
    [Plane::Open, Plane::Tls(certificates.trust(&["127.0.0.1"]))]
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|index| (index * 7 + index / 251) as u8).collect()
}

#[test]
fn bytes_go_both_ways_at_once_over_halves() {
    let certificates = TestCluster::new();
    for plane in planes(&certificates) {
        run(async {
            let (dialled, accepted) = good(&plane).await;
            assert_eq!((dialled.is_tls(), dialled.peer_names().is_some()), (plane.trust().is_some(), !plane.is_open()));
            let all = bytes(3_000_000);
            let mut tasks = Vec::new();
            for stream in [dialled, accepted] {
                let (mut reader, mut writer) = stream.into_split();
                let (sent, expected) = (all.clone(), all.clone());
                let canceller = Canceller::new();
                let handle = canceller.handle();
                tasks.push(monoio::spawn(async move {
                    let (mut sent, mut done) = (sent, 0);
                    while done < sent.len() {
                        let length = sent.len();
                        let (result, slice) = writer.cancelable_write(sent.slice(done..length), handle.clone()).await;
                        sent = slice.into_inner();
                        done += result.unwrap();
                    }
                    writer.cancelable_shutdown(handle).await.unwrap();
                }));
                let handle = canceller.handle();
                tasks.push(monoio::spawn(async move {
                    let mut received = Vec::new();
                    for room in (1..).map(|round| 1 + round * 37 % 40_000) {
                        let (result, some) = reader.cancelable_read(Vec::with_capacity(room), handle.clone()).await;
                        if result.unwrap() == 0 {
                            break;
                        }
                        assert!(some.len() <= some.capacity());
                        received.extend_from_slice(&some);
                    }
                    assert!(received == expected, "{} of {} bytes", received.len(), expected.len());
                    drop(canceller);
                }));
            }
            for task in tasks {
                task.await;
            }
        });
    }
}

#[test]
fn whole_streams_read_and_write_in_every_way() {
    let certificates = TestCluster::new();
    for plane in planes(&certificates) {
        run(async {
            let (mut dialled, mut accepted) = good(&plane).await;
            dialled.write_all(b"first".to_vec()).await.0.unwrap();
            dialled.flush().await.unwrap();
            assert_eq!(accepted.read_exact(vec![0; 5]).await.1, b"first");
            let parts = VecBuf::from(vec![Vec::new(), b"sec".to_vec(), b"ond".to_vec()]);
            dialled.write_vectored_all(parts).await.0.unwrap();
            let (result, buffers) = accepted.readv(VecBuf::from(vec![vec![0; 2], vec![0; 8]])).await;
            let count = result.unwrap();
            let read = Vec::<Vec<u8>>::from(buffers).concat();
            assert!(count > 0 && b"second".starts_with(&read[..count.min(2)]), "{count} {read:?}");
            dialled.shutdown().await.unwrap();
            let mut rest = count;
            while let (Ok(more @ 1..), _) = accepted.read(vec![0; 4]).await {
                rest += more;
            }
            assert_eq!(rest, 6);
            // The other way is still open.
            accepted.write_all(b"answer".to_vec()).await.0.unwrap();
            assert_eq!(dialled.read_exact(vec![0; 6]).await.1, b"answer");
        });
    }
}

#[test]
fn who_is_refused_hears_it_and_so_does_the_other_side() {
    let (ours, theirs) = (TestCluster::new(), TestCluster::new());
    let plane = |certificates: &TestCluster, name| Plane::Tls(certificates.trust(&[name]));
    run(async {
        let (dialled, accepted) = meet(&plane(&theirs, "127.0.0.1"), &plane(&ours, "127.0.0.1")).await;
        let words = (dialled.unwrap_err().to_string(), accepted.unwrap_err().to_string());
        assert!(
            words.0.contains("not signed by an authority") && words.1.contains("another authority of the same name"),
            "{words:?}"
        );
        // The side that dialled hears it when it reads.
        let (dialled, accepted) = meet(&plane(&ours, "10.9.9.9"), &plane(&ours, "127.0.0.1")).await;
        let words = accepted.unwrap_err().to_string();
        assert!(words.contains("is not for it") && words.contains("10.9.9.9"), "{words}");
        let error = dialled.unwrap().read(vec![0; 8]).await.0.unwrap_err();
        let error = error.downcast::<TlsError>().unwrap();
        assert!(matches!(error, TlsError::Refused { .. }), "{error}");
        // One that speaks something else.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\n\r\n".to_vec()).await.0.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let channel = plane(&ours, "127.0.0.1").accepted(LOCAL).unwrap();
        let words = SecureStream::establish(stream, channel).await.unwrap_err().to_string();
        assert!(words.contains("does not speak TLS") && words.contains("plain HTTP request"), "{words}");
    });
}

#[test]
fn an_end_without_goodbye_is_an_error() {
    let certificates = TestCluster::new();
    let [_, plane] = planes(&certificates);
    run(async {
        let (dialled, mut accepted) = good(&plane).await;
        drop(dialled);
        let error = accepted.read(vec![0; 8]).await.0.unwrap_err();
        assert!(error.to_string().contains("without close_notify"), "{error}");
    });
}

#[test]
fn after_a_write_that_was_cut_nothing_more_is_said_and_nothing_waits() {
    let certificates = TestCluster::new();
    for plane in planes(&certificates) {
        run(async {
            let (dialled, mut accepted) = good(&plane).await;
            let (_reader, mut writer) = dialled.into_split();
            let canceller = Canceller::new();
            let handle = canceller.handle();
            // Nobody reads: at some point the write waits until it is cancelled.
            monoio::spawn(async move {
                monoio::time::sleep(Duration::from_millis(100)).await;
                drop(canceller.cancel());
            });
            while writer.cancelable_write(vec![9; 1 << 20], handle.clone()).await.0.is_ok() {}
            let _ = writer.cancelable_shutdown(handle.clone()).await;
            let written = writer.cancelable_write(vec![9; 10], handle).await.0;
            assert!(written.is_err());
            // What the other side gets ends, and with TLS not well.
            let end = loop {
                match accepted.read(vec![0; 1 << 16]).await.0 {
                    Ok(0) => break Ok(()),
                    Ok(_) => {}
                    Err(error) => break Err(error.to_string()),
                }
            };
            assert_eq!(end.is_err(), plane.trust().is_some(), "{end:?}");
        });
    }
}
