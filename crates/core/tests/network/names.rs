//! Names that stand for this machine, and where they really resolve to; a DNS server that is silent. Linux, as root: each
//! test has its own `/etc/hosts` or `/etc/resolv.conf`.

use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use feishu_feed_card::{ConnectionReason, Error};
use feishu_feed_card_sandbox::Sandbox;

use super::proxy_servers::{Proxy, Socks};
use super::servers::{Certificate, Platform};
use super::{TempFile, app, passed, pin, with_sources};

const HOSTS: &str = "
127.0.0.1 localhost
192.0.2.1 elsewhere.localhost
192.0.2.1 both.localhost
127.0.0.1 both.localhost
::1       twice.localhost
127.0.0.1 twice.localhost
";

/// Runs an ignored test in a process whose `system_file` has this content. Skipped where that needs root.
fn passes_with(system_file: &str, content: &str, test: &str) {
    let file = TempFile::new(test, content);
    let run = |program: &std::path::Path, arguments: &[&str]| {
        let script = format!(r#"mount --bind "$TEST_FILE" {system_file} && exec "$0" "$@""#);
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", &script])
            .arg(program)
            .args(arguments);
        command.env("TEST_FILE", &file.0).output()
    };
    if !run("true".as_ref(), &[]).is_ok_and(|output| output.status.success()) {
        println!("skipped: no mount namespaces here (they need root)");
        return;
    }
    let test = format!("names::{test}");
    let arguments = ["--exact", &test, "--ignored", "--nocapture"];
    passed(&run(&std::env::current_exe().unwrap(), &arguments).unwrap());
}

#[test]
fn a_name_for_this_machine_must_resolve_to_it() {
    passes_with("/etc/hosts", HOSTS, "in_env_own_hosts");
}

/// Where it listens, no machine has a DNS server.
const SILENT_DNS: &str = "127.9.8.7";

#[test]
fn a_silent_dns_server_is_told_from_a_silent_host() {
    let configuration = format!("nameserver {SILENT_DNS}\n");
    passes_with("/etc/resolv.conf", &configuration, "in_env_silent_dns");
}

#[tokio::test]
#[ignore = "run by a_silent_dns_server_is_told_from_a_silent_host"]
async fn in_env_silent_dns() {
    let server = UdpSocket::bind((SILENT_DNS, 53)).unwrap();
    let builder = app().base_url("https://silent.invalid").max_retries(0);
    let client = builder.connect_timeout(Duration::from_secs(1)).build().unwrap();
    let began = Instant::now();
    let error = pin(&client).await.unwrap_err();
    assert_eq!(error.reason(), Some(ConnectionReason::Dns), "{error}");
    let printed = with_sources(&error);
    assert!(
        printed.contains("silent.invalid cannot be resolved: no answer from the DNS server"),
        "{printed}"
    );
    assert!(error.retryable() && began.elapsed() < Duration::from_secs(2));
    assert!(server.recv(&mut [0; 512]).is_ok(), "the server was asked");
}

#[tokio::test]
#[ignore = "run by a_name_for_this_machine_must_resolve_to_it"]
async fn in_env_own_hosts() {
    let sandbox = Sandbox::builder().start().unwrap();
    let port = sandbox.address().port();
    let to = |host: &str| app().base_url(format!("http://{host}:{port}")).max_retries(0);

    assert_is_refused(
        &pin(&to("elsewhere.localhost").build().unwrap())
            .await
            .unwrap_err(),
    );
    // The proxy's name stands for this machine as well.
    let through = to("localhost").proxy("http://elsewhere.localhost:3128");
    assert_is_refused(&pin(&through.build().unwrap()).await.unwrap_err());
    // Of its addresses only this machine's are used.
    assert!(pin(&to("both.localhost").build().unwrap()).await.unwrap().ok());

    // Proxies of these kinds are sent the first address. SOCKS4 has no IPv6.
    let certificate = Certificate::new(&["twice.localhost"]);
    let pem = TempFile::new("names.pem", &certificate.pem);
    let platform = Platform::with(certificate);
    for scheme in ["socks4", "socks5"] {
        let proxy = Proxy::socks(Socks::Open, platform.address);
        let builder = app().base_url("https://twice.localhost").ca_certs(&pem.0);
        let client = builder
            .proxy(format!("{scheme}://{}", proxy.address))
            .build()
            .unwrap();
        assert!(pin(&client).await.unwrap().ok());
        assert!(
            proxy.asked()[0].ends_with(" 127.0.0.1:443"),
            "{:?}",
            proxy.asked()
        );
    }
}

fn assert_is_refused(error: &Error) {
    assert_eq!(error.reason(), Some(ConnectionReason::Dns), "{error}");
    let printed = with_sources(error);
    assert!(
        printed.contains("elsewhere.localhost resolves to another machine"),
        "{printed}"
    );
    assert!(printed.contains("allow_http"), "{printed}");
}
