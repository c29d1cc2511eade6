//! Dropping a sandbox. This file has one test only, because it counts the threads and file descriptors of its process,
//! and another test would add some.
#![cfg(target_os = "linux")]

mod common;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::App;
use feishu_feed_card_sandbox::{Fault, Sandbox};

/// The number of threads and file descriptors of the process.
fn resources() -> (usize, usize) {
    let count = |folder| std::fs::read_dir(folder).into_iter().flatten().count();
    (count("/proc/self/task"), count("/proc/self/fd"))
}

/// Waits until the process has these resources: a thread may remain in /proc for a moment after it was joined.
fn wait_for_resources(expected: (usize, usize)) {
    let began = Instant::now();
    while resources() != expected {
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{:?} instead of {expected:?}",
            resources()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn dropping_a_sandbox_frees_its_threads_and_descriptors() {
    // The first runtime of a process opens two descriptors for signals and keeps them.
    drop(
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap(),
    );
    let before = resources();
    for _ in 0..20 {
        let sandbox = Sandbox::builder().https(true).start().unwrap();
        let address = sandbox.address();
        let (threads, descriptors) = resources();
        assert!(threads == before.0 + 1 && descriptors > before.1);
        // One connection is idle, one has a request in progress, and one late delivery is pending.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let idle = TcpStream::connect(address).unwrap();
        runtime.block_on(async {
            let app = App::new(&sandbox).await;
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
                    "the request did not arrive"
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
        wait_for_resources(before);
    }
}
