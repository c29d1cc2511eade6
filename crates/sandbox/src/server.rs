//! The HTTP and HTTPS server around a [`Stage`], on a thread of its own.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc as async_mpsc, oneshot, watch};
use tokio_rustls::TlsAcceptor;

use crate::control::{Control, ControlError};
use crate::deliver::{Delivery, Unsized};
use crate::stage::Stage;
use crate::wire::{Line, Sent, Wire};

/// A thousand times what fifty ids need; a proxy in front of the platform refuses more with 413.
const MAX_BODY: usize = 4 << 20;

/// Beyond this a request is cut off.
const MAX_DRAINED: usize = 64 << 20;

/// How long a dropped server may take to end.
const STOP: Duration = Duration::from_secs(1);

/// Told when a command was carried out; by another thread, or by a request to this server.
type Ack = Box<dyn FnOnce(io::Result<()>) + Send>;

enum Command {
    Pause(Ack),
    Resume(Ack),
    /// All but the one with this number, which asks for it.
    CloseConnections(Option<u64>, Ack),
}

/// A running server. Dropping it ends its thread and with it every connection and delayed delivery.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) http: SocketAddr,
    pub(crate) https: Option<SocketAddr>,
    commands: Option<async_mpsc::UnboundedSender<Command>>,
    /// Disconnected when the thread has dropped its runtime. The mutex makes a server shareable.
    ended: Mutex<mpsc::Receiver<()>>,
    thread: Option<JoinHandle<()>>,
    process: u32,
}

impl Server {
    pub(crate) fn start(
        stage: Stage,
        http: SocketAddr,
        https: Option<(SocketAddr, TlsAcceptor)>,
        max_concurrent_streams: Option<u32>,
    ) -> io::Result<Self> {
        let (http_listener, http) = listen(http)?;
        let mut doors = vec![Door {
            address: http,
            tls: None,
        }];
        let mut listeners = vec![http_listener];
        let mut https_address = None;
        if let Some((address, tls)) = https {
            let (listener, address) = listen(address)?;
            https_address = Some(address);
            doors.push(Door {
                address,
                tls: Some(tls),
            });
            listeners.push(listener);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (commands, received) = async_mpsc::unbounded_channel();
        let (ending, ended) = mpsc::channel();
        let house = Arc::new(House {
            stage,
            connections: AtomicU64::new(0),
            hang_up: watch::Sender::new(None),
            commands: commands.downgrade(),
            http: protocol(max_concurrent_streams),
        });
        let thread = std::thread::Builder::new()
            .name("feishu-sandbox".to_owned())
            .spawn(move || {
                runtime.block_on(run(&house, &doors, listeners, received));
                drop(runtime);
                drop(ending);
            })?;
        Ok(Self {
            http,
            https: https_address,
            commands: Some(commands),
            ended: Mutex::new(ended),
            thread: Some(thread),
            process: std::process::id(),
        })
    }

    pub(crate) fn pause_listening(&self) -> io::Result<()> {
        self.command(Command::Pause)
    }

    pub(crate) fn resume_listening(&self) -> io::Result<()> {
        self.command(Command::Resume)
    }

    pub(crate) fn close_connections(&self) -> io::Result<()> {
        self.command(|ack| Command::CloseConnections(None, ack))
    }

    fn command(&self, command: impl FnOnce(Ack) -> Command) -> io::Result<()> {
        let (ack, done) = mpsc::channel();
        let gone = || io::Error::other("the sandbox's thread does not answer");
        let commands = self.commands.as_ref().ok_or_else(gone)?;
        let ack: Ack = Box::new(move |result| drop(ack.send(result)));
        commands.send(command(ack)).map_err(|_| gone())?;
        // Bounded, because a forked child has the channel without the thread.
        done.recv_timeout(STOP).map_err(|_| gone())?
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.commands = None;
        // After a fork the thread is not in this process, and joining it would never return.
        if self.process != std::process::id() {
            std::mem::forget(self.thread.take());
            return;
        }
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(STOP) == Err(mpsc::RecvTimeoutError::Disconnected)
            && let Some(thread) = self.thread.take()
        {
            // It has nothing left to do but to return; had it panicked, the panic was printed.
            let _ = thread.join();
        }
    }
}

#[derive(Clone)]
struct Door {
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
}

struct House {
    stage: Stage,
    connections: AtomicU64,
    /// Changed to end all connections but the one with this number.
    hang_up: watch::Sender<Option<u64>>,
    /// Weak, or the server would never hear that nobody has commands for it any more.
    commands: async_mpsc::WeakUnboundedSender<Command>,
    http: Builder<TokioExecutor>,
}

fn protocol(max_concurrent_streams: Option<u32>) -> Builder<TokioExecutor> {
    // One official client reads a header only where it is spelt `X-Tt-Logid`.
    let mut http = Builder::new(TokioExecutor::new()).title_case_headers(true);
    if let Some(most) = max_concurrent_streams {
        http.http2().max_concurrent_streams(most);
    }
    http
}

/// Port 0 takes a free one.
fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

async fn run(
    house: &Arc<House>,
    doors: &[Door],
    listeners: Vec<TcpListener>,
    mut commands: async_mpsc::UnboundedReceiver<Command>,
) {
    let open = |(door, listener): (&Door, TcpListener)| {
        tokio::spawn(accept(Arc::clone(house), door.clone(), listener))
    };
    let mut accepting: Vec<_> = doors.iter().zip(listeners).map(open).collect();
    while let Some(command) = commands.recv().await {
        let (ack, result) = match command {
            Command::Pause(ack) => {
                for task in accepting.drain(..) {
                    task.abort();
                    // The port is closed when the task is gone, not when it is told to go.
                    let _ = task.await;
                }
                (ack, Ok(()))
            }
            Command::Resume(ack) if accepting.is_empty() => {
                let listeners: io::Result<Vec<_>> = doors
                    .iter()
                    .map(|door| listen(door.address).map(|(listener, _)| listener))
                    .collect();
                let result =
                    listeners.map(|listeners| accepting.extend(doors.iter().zip(listeners).map(open)));
                (ack, result)
            }
            Command::Resume(ack) => (ack, Ok(())),
            Command::CloseConnections(but, ack) => {
                house.hang_up.send_replace(but);
                (ack, Ok(()))
            }
        };
        ack(result);
    }
}

async fn accept(house: Arc<House>, door: Door, listener: TcpListener) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let number = house.connections.fetch_add(1, Ordering::Relaxed) + 1;
                let hang_up = hung_up(house.hang_up.subscribe(), number);
                let connection = connection(Arc::clone(&house), stream, door.tls.clone(), number);
                tokio::spawn(async move {
                    tokio::select! {
                        biased;
                        () = hang_up => {}
                        () = connection => {}
                    }
                });
            }
            // Out of descriptors, most likely: some come back when connections end.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Returns when the connection with this number is to be closed.
async fn hung_up(mut hang_up: watch::Receiver<Option<u64>>, number: u64) {
    while hang_up.changed().await.is_ok() {
        if *hang_up.borrow_and_update() != Some(number) {
            return;
        }
    }
}

/// A connection, with or without TLS. One type for both: two of hyper's server are too large for the language
/// packages, which carry it.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

async fn connection(house: Arc<House>, stream: TcpStream, tls: Option<TlsAcceptor>, number: u64) {
    let line = Arc::new(Line::default());
    let _ = stream.set_nodelay(true);
    let wire = Wire::new(stream, Arc::clone(&line));
    if house.stage.refuses_connection() {
        line.reset();
        return;
    }
    let service = service_fn(|request| answer(&house, &line, number, request));
    tokio::select! {
        biased;
        () = line.ended() => {}
        () = async {
            let wire: Box<dyn Duplex> = match tls {
                None => Box::new(wire),
                Some(tls) => match tls.accept(wire).await {
                    Ok(wire) => Box::new(wire),
                    Err(_) => return,
                },
            };
            // How a connection ends is the client's business and the fault script's.
            drop(house.http.serve_connection(TokioIo::new(wire), service).await);
        } => {}
    }
}

fn answer(
    house: &Arc<House>,
    line: &Arc<Line>,
    connection: u64,
    request: Request<Incoming>,
) -> impl Future<Output = io::Result<Response<Sent>>> + Send + 'static {
    let (house, line) = (Arc::clone(house), Arc::clone(line));
    async move {
        let (head, body) = request.into_parts();
        let Some(body) = read_body(body).await? else {
            let page = "<h1>413 Request Entity Too Large</h1>";
            return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE, "text/html", page));
        };
        if let Some(path) = head.uri.path().strip_prefix("/_sandbox/") {
            return Ok(endpoint(&house, connection, &head.method, path, &body).await);
        }
        match house
            .stage
            .deliver_on(connection, Request::from_parts(head, body))
            .await
        {
            Delivery::Answer(response) => Ok(send(response)),
            Delivery::Truncated { response, sent_bytes } => {
                Ok(send(response).map(|body| body.cut_after(sent_bytes)))
            }
            Delivery::Reset => {
                line.reset();
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
    }
}

/// `None` for one that is too large. That is read to its end all the same, or the client, still sending,
/// would find its connection reset instead of the answer.
async fn read_body(mut body: Incoming) -> io::Result<Option<Bytes>> {
    match Limited::new(&mut body, MAX_BODY).collect().await {
        Ok(body) => return Ok(Some(body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => {}
        Err(error) => return Err(io::Error::other(error)),
    }
    let mut left = MAX_DRAINED;
    while let Some(frame) = body.frame().await {
        let length = frame.map_err(io::Error::other)?.data_ref().map_or(0, Bytes::len);
        left = left.checked_sub(length).ok_or(io::ErrorKind::FileTooLarge)?;
    }
    Ok(None)
}

fn send(response: Response<Bytes>) -> Response<Sent> {
    let without_length = response.extensions().get::<Unsized>().is_some();
    let response = response.map(Sent::whole);
    if without_length {
        response.map(Sent::without_length)
    } else {
        response
    }
}

/// `GET state`, `GET requests`, and `POST control` with a [`Control`].
async fn endpoint(
    house: &House,
    connection: u64,
    method: &Method,
    path: &str,
    body: &[u8],
) -> Response<Sent> {
    let control = match (method, path) {
        (&Method::GET, "state") => Ok(Control::State {}),
        (&Method::GET, "requests") => Ok(Control::Requests {}),
        (&Method::POST, "control") => Control::from_json(&String::from_utf8_lossy(body)),
        _ => {
            let known = "GET /_sandbox/state, GET /_sandbox/requests or POST /_sandbox/control\n";
            return plain(StatusCode::NOT_FOUND, "text/plain", known);
        }
    };
    let result = match control {
        Ok(control) => carry_out(house, connection, control).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(value) => plain(StatusCode::OK, "application/json", format!("{value}\n")),
        Err(error) => plain(StatusCode::BAD_REQUEST, "text/plain", format!("{error}\n")),
    }
}

async fn carry_out(house: &House, connection: u64, control: Control) -> Result<Value, ControlError> {
    let (ack, done) = oneshot::channel();
    let ack: Ack = Box::new(move |result| drop(ack.send(result)));
    let command = match control {
        Control::PauseListening {} => Command::Pause(ack),
        Control::ResumeListening {} => Command::Resume(ack),
        Control::CloseConnections {} => Command::CloseConnections(Some(connection), ack),
        other => return house.stage.control(other),
    };
    let sent = house
        .commands
        .upgrade()
        .is_some_and(|commands| commands.send(command).is_ok());
    match done.await {
        Ok(result) if sent => result
            .map(|()| Value::Null)
            .map_err(|error| ControlError(error.to_string())),
        _ => Err(ControlError("the sandbox is ending".to_owned())),
    }
}

fn plain(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Sent> {
    let mut response = Response::new(Sent::whole(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
