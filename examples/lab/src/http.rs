//! Just enough HTTP to ask Consul on the lab's own bridge: version 1.0, one request for each connection.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::error::{Error, Result};

/// Asks, and gives status and JSON body; a body that is not JSON comes as a JSON string.
pub(crate) async fn ask(
    service: &'static str,
    addr: SocketAddr,
    request: &str,
    limit: Duration,
) -> Result<(u16, Value)> {
    let fail =
        |why: String| Error::Service { service, addr: addr.to_string(), request: request.to_owned(), why };
    match tokio::time::timeout(limit, exchange(addr, request)).await {
        Ok(Ok(answer)) => parse(&answer).ok_or_else(|| fail("it sent no HTTP answer".to_owned())),
        Ok(Err(error)) => Err(fail(error.to_string())),
        Err(_) => Err(fail(format!("no answer within {} ms", limit.as_millis()))),
    }
}

async fn exchange(addr: SocketAddr, request: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all(format!("{request} HTTP/1.0\r\nHost: {addr}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    (&mut stream).take(MAX_ANSWER).read_to_end(&mut answer).await?;
    Ok(answer)
}

fn parse(answer: &[u8]) -> Option<(u16, Value)> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(answer.get(..end)?).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let body = answer.get(end + 4..)?;
    // Cut short is no answer: half a list must not pass for a list.
    if length.is_some_and(|length| length > body.len()) {
        return None;
    }
    let text = || Value::String(String::from_utf8_lossy(body).into_owned());
    Some((status, serde_json::from_slice(body).unwrap_or_else(|_| text())))
}

const MAX_ANSWER: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_halves_refused() {
        let whole = b"HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
        assert_eq!(parse(whole), Some((200, serde_json::json!({"a": 1}))));
        assert_eq!(parse(&whole[..whole.len() - 1]), None);
        assert_eq!(
            parse(b"HTTP/1.1 503 No\r\n\r\nno leader"),
            Some((503, Value::String("no leader".into())))
        );
        for bad in [&b""[..], b"SSH-2.0-x\r\n\r\n", b"HTTP/1.0 x y\r\n\r\n", b"HTTP/1.0 200 OK\r\n"] {
            assert_eq!(parse(bad), None);
        }
    }
}
