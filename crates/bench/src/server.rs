//! The server for all clients. It parses only what it needs to count a request, and always returns the same response. So
//! it needs a fraction of the CPU of any client. (hyper would need about as much as the fastest client.)

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Write, stdout};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Result;

const CARDS: &str = "/open-apis/im/v2/feed_cards/";
const SUCCESS: &str = r#"{"code":0,"msg":"success","data":{"failed_user_reasons":[]}}"#;
const TOKEN: &str = r#"{"code":0,"msg":"ok","tenant_access_token":"t-benchmarks00000000000000000000000000000","expire":7200}"#;

/// The calls since the last count.
#[derive(Default)]
struct Counts {
    calls: u64,
    chats: HashSet<u64>,
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn serve() -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    writeln!(stdout(), "http://{}", listener.local_addr()?)?;
    stdout().flush()?;
    let counts = Arc::new(Mutex::new(Counts::default()));
    // Ends with the process that started it.
    let started_by = tokio::spawn(async {
        let mut end = [0; 1];
        drop(tokio::io::stdin().read(&mut end).await);
    });
    tokio::pin!(started_by);
    loop {
        tokio::select! {
            _ = &mut started_by => return Ok(()),
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                let counts = Arc::clone(&counts);
                tokio::spawn(async move { drop(connection(stream, &counts).await) });
            }
        }
    }
}

async fn connection(mut stream: TcpStream, counts: &Mutex<Counts>) -> Result<()> {
    let mut received = Vec::with_capacity(4096);
    let mut answers = Vec::with_capacity(4096);
    while stream.read_buf(&mut received).await? > 0 {
        let mut used = 0;
        while let Some((path, length)) = request(&received[used..])? {
            let body = answer(path, counts);
            used += length;
            write!(
                answers,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\n\
                 x-tt-logid: 0123456789abcdef\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )?;
        }
        received.drain(..used);
        if !answers.is_empty() {
            stream.write_all(&answers).await?;
            answers.clear();
        }
    }
    Ok(())
}

/// Path and length of the first request. `None` if it is not complete yet.
fn request(bytes: &[u8]) -> Result<Option<(&str, usize)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end])?;
    let mut length = end + 4;
    for line in head.split("\r\n").skip(1) {
        let (name, value) = line.split_once(':').ok_or("no header")?;
        if name.eq_ignore_ascii_case("content-length") {
            length += value.trim().parse::<usize>()?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err("a body without its length".into());
        }
    }
    let path = head.split(' ').nth(1).ok_or("no path")?;
    Ok((bytes.len() >= length).then_some((path, length)))
}

fn answer(path: &str, counts: &Mutex<Counts>) -> std::borrow::Cow<'static, str> {
    if let Some(chat) = path.strip_prefix(CARDS) {
        let mut hasher = DefaultHasher::new();
        chat.hash(&mut hasher);
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.calls += 1;
        counts.chats.insert(hasher.finish());
        SUCCESS.into()
    } else if path == "/counts" {
        let counts = std::mem::take(&mut *counts.lock().unwrap_or_else(PoisonError::into_inner));
        format!("{} {}", counts.calls, counts.chats.len()).into()
    } else {
        TOKEN.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_when_they_are_whole() {
        let bytes = b"PATCH /open-apis/im/v2/feed_cards/oc_1?x=y HTTP/1.1\r\nContent-Length: 4\r\n\r\nbodyGET / HTTP/1.1\r\n\r\n";
        let first = bytes.len() - b"GET / HTTP/1.1\r\n\r\n".len();
        let read = |count: usize| request(&bytes[..count]).unwrap();
        assert_eq!(read(10), None);
        assert_eq!(read(first - 1), None);
        let whole = Some(("/open-apis/im/v2/feed_cards/oc_1?x=y", first));
        assert_eq!(read(first), whole);
        assert_eq!(read(bytes.len()), whole);
        assert_eq!(
            request(&bytes[first..]).unwrap(),
            Some(("/", bytes.len() - first))
        );
        assert!(request(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }

    #[test]
    fn calls_and_chats_are_counted() {
        let counts = Mutex::default();
        for chat in ["oc_1", "oc_2", "oc_2"] {
            answer(&format!("{CARDS}{chat}?user_id_type=open_id"), &counts);
        }
        assert!(answer("/open-apis/auth/v3/tenant_access_token/internal", &counts).contains("t-bench"));
        assert_eq!(answer("/counts", &counts), "3 2");
        assert_eq!(answer("/counts", &counts), "0 0");
    }
}
