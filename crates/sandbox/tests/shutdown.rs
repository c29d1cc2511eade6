//! The end of a sandbox. Alone in its file: it counts the process's threads and descriptors, and a test
//! beside it would have some of its own.
#![cfg(target_os = "linux")]

mod common;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::App;
use feishu_feed_card_sandbox::{Fault, Sandbox};

/// The process's threads and descriptors.
fn held() -> (usize, usize) {
    let count = |folder| std::fs::read_dir(folder).into_iter().flatten().count();
    (count("/proc/self/task"), count("/proc/self/fd"))
}

/// The kernel takes a thread off its list a moment after it was joined.
fn settle(expected: (usize, usize)) {
    let began = Instant::now();
    while held() != expected {
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{:?}, not {expected:?}",
            held()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn nothing_is_left_when_it_is_dropped() {
    // tokio keeps one pair of descriptors for signals in every process that made a runtime.
    drop(
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap(),
    );
    let before = held();
    for _ in 0..20 {
        let sandbox = Sandbox::builder().https(true).start().unwrap();
        let address = sandbox.address();
        let (threads, descriptors) = held();
        assert!(threads == before.0 + 1 && descriptors > before.1);
        // With one connection idle, one in the middle of a request and a late delivery under way.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let idle = TcpStream::connect(address).unwrap();
        runtime.block_on(async {
            let app = App::of(&sandbox).await;
            sandbox.fault(Fault {
                late_ms: Some(60_000),
                ..Fault::on_call()
            });
            app.pin(true).await.unwrap_err();
            sandbox.fault(Fault {
                delay_before_ms: 60_000,
                ..Fault::on_call()
            });
            let pending = tokio::spawn(async move { app.pin(true).await });
            let began = Instant::now();
            while sandbox.request_count() < 3 {
                assert!(
                    began.elapsed() < Duration::from_secs(5),
                    "the request does not come"
                );
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let began = Instant::now();
            drop(sandbox);
            assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
            pending.await.unwrap().unwrap_err();
        });
        assert!(TcpStream::connect(address).is_err());
        drop((idle, runtime));
        settle(before);
    }
}
