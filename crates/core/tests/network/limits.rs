//! What a container's limits leave: no thread, no file descriptor.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use feishu_feed_card::{Error, ErrorKind, Request};
use feishu_feed_card_sandbox::Sandbox;
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::servers::{LOCAL, serve};
use super::{CHAT, TempFile, USER, app, client, passed, pin, test_base_url, with_sources};

/// A user without processes: the limit of threads is for all of a user's processes, and root has none.
const NOBODY_ELSE: u32 = 54_321;

/// How long a server takes to begin.
const SLOWNESS: Duration = Duration::from_millis(100);

/// Runs an ignored test in a process whose limits it may change.
fn limited(test: &str, variables: &[(&str, &str)]) {
    let program = std::env::current_exe().unwrap();
    let run = |command: &mut Command| {
        command.args(["--exact", test, "--ignored", "--nocapture"]);
        command.envs(variables.iter().copied());
        passed(&command.output().unwrap());
    };
    if geteuid().is_root() {
        // The other user may not have access to the build's folder.
        let name = format!("feishu-feed-card-{}-program", std::process::id());
        let copy = TempFile(std::env::temp_dir().join(name));
        std::fs::copy(program, &copy.0).unwrap();
        run(Command::new(&copy.0).uid(NOBODY_ELSE).gid(NOBODY_ELSE));
    } else {
        run(&mut Command::new(program));
    }
}

/// Lowers a limit below what the process has already, until the guard is dropped.
fn exhaust(resource: Resource) -> Exhausted {
    let before = getrlimit(resource);
    let none = Rlimit {
        current: Some(1),
        maximum: before.maximum,
    };
    setrlimit(resource, none).unwrap();
    Exhausted { resource, before }
}

struct Exhausted {
    resource: Resource,
    before: Rlimit,
}

impl Drop for Exhausted {
    fn drop(&mut self) {
        setrlimit(self.resource, self.before).unwrap();
    }
}

/// Nothing is wrong with the connection, and nothing was sent.
fn assert_is_about_limits(error: &Error, what: &str) {
    assert_eq!(
        (error.kind(), error.reason()),
        (ErrorKind::ConnectionFailed, None),
        "{error}"
    );
    assert!(error.retryable());
    assert_eq!(error.users().not_attempted, [USER], "{error}");
    assert!(with_sources(error).contains(what), "{error}");
    assert!(error.hint().unwrap().contains("limits"), "{error}");
}

#[test]
fn without_a_thread_only_the_request_fails() {
    limited("limits::in_env_no_thread", &[]);
}

#[tokio::test]
#[ignore = "run by without_a_thread_only_the_request_fails"]
async fn in_env_no_thread() {
    let sandbox = Sandbox::builder().start().unwrap();
    // A name, which needs a thread to be resolved.
    let base_url = sandbox.base_url().replace("127.0.0.1", "localhost");
    let client = app().base_url(base_url).max_retries(0).build().unwrap();
    let limit = exhaust(Resource::Nproc);
    assert!(
        std::thread::Builder::new().spawn(|| {}).is_err(),
        "the limit is in force"
    );
    let began = Instant::now();
    assert_is_about_limits(
        &pin(&client).await.unwrap_err(),
        "no thread is available to resolve localhost",
    );

    let requests = (0..6).map(|_| Request::new(CHAT, [USER], true));
    let mut many = client.set_time_sensitive_many(requests).concurrency(1);
    for _ in 0..3 {
        let item = many.next().await.unwrap().unwrap();
        assert_is_about_limits(
            &item.result.unwrap_err(),
            "no thread is available to resolve localhost",
        );
    }
    drop(limit);
    let mut reached = 0;
    while let Some(item) = many.next().await.transpose().unwrap() {
        // Requests that began while there was no thread.
        reached += usize::from(item.result.is_ok());
    }
    assert!(reached >= 2, "{reached}");
    let report = many.report().await;
    assert_eq!((report.taken, report.failed), (6, 6 - reached), "{report:?}");
    assert!(pin(&client).await.unwrap().ok());
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn roots_that_could_not_be_loaded_are_loaded_later() {
    let sandbox = Sandbox::builder().https(true).start().unwrap();
    let pem = TempFile::new("limits-ca.pem", sandbox.ca_pem().unwrap());
    let secure = sandbox.https_base_url().unwrap().replace("https://", "");
    let slow = serve(LOCAL, move |mut near| {
        let secure = secure.clone();
        async move {
            sleep(SLOWNESS).await;
            let mut far = TcpStream::connect(secure).await?;
            copy_bidirectional(&mut near, &mut far).await.map(drop)
        }
    });
    let variables = [
        ("SSL_CERT_FILE", pem.0.to_str().unwrap()),
        ("TEST_BASE_URL", &format!("https://{slow}")),
    ];
    limited("limits::in_env_no_thread_for_roots", &variables);
    limited("limits::in_env_no_descriptor_for_roots", &variables);
}

#[tokio::test]
#[ignore = "run by roots_that_could_not_be_loaded_are_loaded_later"]
async fn in_env_no_thread_for_roots() {
    let client = app().base_url(test_base_url()).max_retries(0).build().unwrap();
    let limit = exhaust(Resource::Nproc);
    let error = pin(&client).await.unwrap_err();
    assert_is_about_limits(&error, "no thread is available to load the system's certificates");
    drop(limit);
    assert!(pin(&client).await.unwrap().ok());
}

#[tokio::test]
#[ignore = "run by roots_that_could_not_be_loaded_are_loaded_later"]
async fn in_env_no_descriptor_for_roots() {
    let client = app().base_url(test_base_url()).max_retries(0).build().unwrap();
    let exhausting = async {
        // The connection has its descriptor, and the server's certificate is not there yet.
        sleep(SLOWNESS / 2).await;
        exhaust(Resource::Nofile)
    };
    let (result, limit) = tokio::join!(pin(&client), exhausting);
    let error = result.unwrap_err();
    assert_is_about_limits(&error, "os error 24");
    drop(limit);
    assert!(pin(&client).await.unwrap().ok());
}

#[test]
fn without_a_descriptor_only_the_request_fails() {
    limited("limits::in_env_no_descriptor", &[]);
}

#[tokio::test]
#[ignore = "run by without_a_descriptor_only_the_request_fails"]
async fn in_env_no_descriptor() {
    let sandbox = Sandbox::builder().start().unwrap();
    let by_address = || app().base_url(sandbox.base_url()).max_retries(0).build().unwrap();
    let by_name = sandbox.base_url().replace("127.0.0.1", "localhost");
    let by_name = app().base_url(by_name).max_retries(0).build().unwrap();
    let cold = by_address();
    let warm = client(&sandbox);
    assert!(pin(&warm).await.unwrap().ok());
    let limit = exhaust(Resource::Nofile);
    for client in [&cold, &by_name] {
        assert_is_about_limits(&pin(client).await.unwrap_err(), "os error 24");
    }
    // A kept connection needs no descriptor.
    assert!(pin(&warm).await.unwrap().ok());
    drop(limit);
    for client in [&cold, &by_name] {
        assert!(pin(client).await.unwrap().ok());
    }
}
