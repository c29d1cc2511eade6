//! Names that stand for this machine, and where they really resolve to. Linux, as root: the test has its own `/etc/hosts`.

use std::process::Command;

use feishu_feed_card::{ConnectionReason, Error};
use feishu_feed_card_sandbox::Sandbox;

use super::proxy_servers::{Proxy, Socks};
use super::servers::{Certificate, Platform};
use super::{TempFile, app, passed, pin};

const HOSTS: &str = "
127.0.0.1 localhost
192.0.2.1 elsewhere.localhost
192.0.2.1 both.localhost
127.0.0.1 both.localhost
::1       twice.localhost
127.0.0.1 twice.localhost
";

#[test]
fn a_name_for_this_machine_must_resolve_to_it() {
    let hosts = TempFile::new("hosts", HOSTS);
    let with_hosts = |program: &std::path::Path, arguments: &[&str]| {
        let script = r#"mount --bind "$TEST_HOSTS" /etc/hosts && exec "$0" "$@""#;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", script])
            .arg(program)
            .args(arguments);
        command.env("TEST_HOSTS", &hosts.0).output()
    };
    if !with_hosts("true".as_ref(), &[]).is_ok_and(|output| output.status.success()) {
        println!("skipped: no mount namespaces here (they need root)");
        return;
    }
    let test = ["--exact", "names::in_env_own_hosts", "--ignored", "--nocapture"];
    passed(&with_hosts(&std::env::current_exe().unwrap(), &test).unwrap());
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
    assert!(
        error
            .to_string()
            .contains("elsewhere.localhost resolves to another machine"),
        "{error}"
    );
    assert!(error.to_string().contains("allow_http"), "{error}");
}
