//! Certificates: whose are trusted, and what becomes of a connection whose are not.

use std::collections::HashSet;
#[cfg(unix)] // for mkfifo
use std::process::Command;

use feishu_feed_card::{Client, ErrorKind};
use feishu_feed_card_sandbox::Sandbox;
use futures_util::future::join_all;

use super::{CHAT, TempFile, USER, app, in_process, pin, test_base_url, with_sources};

#[tokio::test]
async fn https_works_with_the_certificate_and_not_without() {
    let sandbox = Sandbox::builder().https(true).start().unwrap();
    let base_url = sandbox.https_base_url().unwrap();
    let pem = TempFile::new("ca.pem", sandbox.ca_pem().unwrap());
    let trusting = app().base_url(&base_url).ca_certs(&pem.0).build().unwrap();
    assert!(pin(&trusting).await.unwrap().ok());
    // One connection carries many calls at once: the sandbox offers HTTP/2.
    let calls = (0..20).map(|_| trusting.set_time_sensitive(CHAT, [USER], true).into_future());
    for outcome in join_all(calls).await {
        assert!(outcome.unwrap().ok());
    }
    let connections: HashSet<_> = sandbox
        .requests()
        .iter()
        .map(|record| record.connection)
        .collect();
    assert_eq!(connections.len(), 1);

    let wary = app().base_url(&base_url).max_retries(0).build().unwrap();
    let error = pin(&wary).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionFailed);
    assert!(error.to_string().contains("ca_certs"), "{error}");
    assert!(with_sources(&error).contains("UnknownIssuer"), "{error}");
}

#[test]
fn an_unusable_pem_file_is_told_when_the_client_is_made() {
    let empty = TempFile::new("empty.pem", "");
    let broken = TempFile::new(
        "broken.pem",
        "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
    );
    let junk = TempFile::new(
        "junk.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    for path in [&empty.0, &broken.0, &junk.0, &"/nonexistent/ca.pem".into()] {
        let error = app().ca_certs(path).build().unwrap_err();
        assert_eq!(
            (error.kind(), error.field()),
            (ErrorKind::InvalidInput, Some("ca_certs")),
            "{error}"
        );
    }
}

/// The machine's own roots are asked when an issuer is not among the bundled ones.
#[test]
fn a_root_of_the_machine_is_trusted() {
    let sandbox = Sandbox::builder().https(true).start().unwrap();
    let pem = TempFile::new("machine-ca.pem", sandbox.ca_pem().unwrap());
    let variables = [
        ("SSL_CERT_FILE", pem.0.to_string_lossy().into_owned()),
        ("TEST_BASE_URL", sandbox.https_base_url().unwrap()),
    ];
    in_process("trust::in_env_the_machine_trusts_the_sandbox", &variables);
}

#[tokio::test]
#[ignore = "run by a_root_of_the_machine_is_trusted"]
async fn in_env_the_machine_trusts_the_sandbox() {
    assert!(
        pin(&app().base_url(test_base_url()).build().unwrap())
            .await
            .unwrap()
            .ok()
    );
}

/// `SSL_CERT_FILE` is a pipe that can be read only once. All connections that meet the unknown issuer meanwhile wait for
/// the same read.
// Needs mkfifo.
#[cfg(unix)]
#[test]
fn the_systems_roots_are_loaded_once_for_all_connections() {
    let sandbox = Sandbox::builder().https(true).start().unwrap();
    let pipe = TempFile(std::env::temp_dir().join(format!("feishu-feed-card-{}-once", std::process::id())));
    assert!(Command::new("mkfifo").arg(&pipe.0).status().unwrap().success());
    let (path, pem) = (pipe.0.clone(), sandbox.ca_pem().unwrap().to_owned());
    // Opening waits for the reader.
    std::thread::spawn(move || std::fs::write(path, pem));
    let variables = [
        ("SSL_CERT_FILE", pipe.0.to_string_lossy().into_owned()),
        ("TEST_BASE_URL", sandbox.https_base_url().unwrap()),
    ];
    in_process("trust::in_env_many_connections_at_once", &variables);
}

#[tokio::test]
#[ignore = "run by the_systems_roots_are_loaded_once_for_all_connections"]
async fn in_env_many_connections_at_once() {
    const CALLS: usize = 40;
    let builder = Client::builder()
        .tenant_access_token("t-1")
        .base_url(test_base_url());
    let client = builder.build().unwrap();
    for result in join_all((0..CALLS).map(|_| pin(&client))).await {
        // The sandbox does not know the token, so it was reached.
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    }
}
