//! A socket that can be reset, and a response body that can be cut short.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Lets the requests of a connection reset it.
#[derive(Debug, Default)]
pub(crate) struct ResetHandle {
    is_reset: AtomicBool,
    notify: Notify,
}

impl ResetHandle {
    /// Ends the connection with an RST packet.
    pub(crate) fn reset(&self) {
        self.is_reset.store(true, Ordering::Relaxed);
        self.notify.notify_one();
    }

    /// Waits until the connection is to be reset.
    pub(crate) async fn requested(&self) {
        self.notify.notified().await;
    }
}

/// The socket of a connection. It is below TLS, so that an HTTPS connection is also reset with an RST packet.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    reset: Arc<ResetHandle>,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, reset: Arc<ResetHandle>) -> Self {
        Self { stream, reset }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.reset.is_reset.load(Ordering::Relaxed) {
            // Closing the socket with a linger time of zero sends RST. Fails only if the connection has ended already.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The body of a response.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    data: Option<Bytes>,
    /// The value of `Content-Length`, if the response has one.
    length: Option<u64>,
    cut: Cut,
}

#[derive(Debug)]
enum Cut {
    No,
    /// Fail after the data was flushed to the socket.
    AfterFlush,
    /// Fail now.
    Now,
}

impl ResponseBody {
    pub(crate) fn new(data: Bytes) -> Self {
        let length = Some(data.len() as u64);
        Self {
            data: Some(data),
            length,
            cut: Cut::No,
        }
    }

    pub(crate) fn without_length(mut self) -> Self {
        self.length = None;
        self
    }

    pub(crate) fn cut_after(mut self, bytes: usize) -> Self {
        if let Some(data) = &mut self.data {
            data.truncate(bytes);
        }
        self.cut = Cut::AfterFlush;
        self
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(data) = self.data.take()
            && !data.is_empty()
        {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match self.cut {
            Cut::No => Poll::Ready(None),
            Cut::AfterFlush => {
                // When a body fails, hyper discards its write buffer. When a body is pending, hyper flushes the buffer.
                self.cut = Cut::Now;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Cut::Now => Poll::Ready(Some(Err(io::Error::other("cut short by the fault script")))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.cut, Cut::No) && self.data.as_ref().is_none_or(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
