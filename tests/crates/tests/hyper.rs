//! hyper's client and server over pila's streams, a tasklet for each connection; and curl as the client.
//!
//! crate: hyper | how: its HTTP/1 client and server over `pila::net::AsyncStream`, feature `hyper`; `pila::block_on` drives a connection
//! crate: http-body-util | how: its bodies, also one that another tasklet fills

use std::{cell::Cell, convert::Infallible, io, net::SocketAddr, rc::Rc, time::Duration};

use books::balanced;
use bytes::Bytes;
use http_body_util::{BodyExt, Channel, Either, Full};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, client::conn::http1 as client,
    server::conn::http1 as server, service::service_fn,
};
use pila::{
    block_on,
    net::{AsyncStream, TcpListener, TcpStream},
    process::Command,
};
use system::peer;

mod books;
#[path = "../../system/mod.rs"]
mod system;

const LIMIT: Duration = Duration::from_secs(120);

/// The length of a body that is made of parts.
const PARTS: usize = 64;
const PART: usize = 16 * 1024;

type Body = Either<Full<Bytes>, Channel<Bytes, Infallible>>;

/// What the site answers.
async fn answer(request: Request<Incoming>) -> hyper::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = match (head.method, head.uri.path()) {
        (Method::GET, "/parts") => {
            let (mut sender, body) = Channel::new(2);
            pila::tasklet(move || {
                for part in 0..PARTS {
                    pila::sleep(Duration::from_micros(100));
                    let bytes = Bytes::from(vec![part as u8; PART]);
                    if block_on(sender.send_data(bytes)).is_err() {
                        return;
                    }
                }
            });
            Either::Right(body)
        }
        (Method::POST, "/echo") => Either::Left(Full::new(body.collect().await?.to_bytes())),
        (Method::GET, path) if path.starts_with("/hello/") => {
            Either::Left(Full::new(format!("hello, {}", &path[7..]).into()))
        }
        _ => {
            let mut missing = Response::new(Either::Left(Full::default()));
            *missing.status_mut() = StatusCode::NOT_FOUND;
            return Ok(missing);
        }
    };
    Ok(Response::new(body))
}

/// A server, whose connections are its tasklets and end with it.
struct Server {
    address: SocketAddr,
    accepted: Rc<Cell<usize>>,
    group: pila::Group,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, group) = (Rc::new(Cell::new(0)), pila::Group::new());
        let (counted, ours) = (accepted.clone(), group.clone());
        group.tasklet(move || {
            while let Ok((stream, _)) = listener.accept() {
                counted.set(counted.get() + 1);
                ours.tasklet(move || {
                    let connection = server::Builder::new()
                        .serve_connection(AsyncStream::new(stream), service_fn(answer));
                    // A client that hangs up in the middle is no matter.
                    block_on(connection).ok();
                });
            }
        });
        Self { address, accepted, group }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stopped = self.group.stop(Duration::ZERO);
        assert!(stopped.alive.is_empty(), "{stopped}");
    }
}

/// A connection of the client, driven by a tasklet of its own.
fn connect(address: SocketAddr) -> client::SendRequest<Full<Bytes>> {
    let stream = AsyncStream::new(TcpStream::connect(address).unwrap());
    let (sender, connection) = block_on(client::handshake(stream)).unwrap();
    pila::tasklet(move || block_on(connection).ok());
    sender
}

fn request(method: Method, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let builder = Request::builder().method(method).uri(path).header("host", "localhost");
    builder.body(Full::new(body.into())).unwrap()
}

/// The body of the answer to a request.
fn ask(
    sender: &mut client::SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> hyper::Result<Bytes> {
    block_on(async {
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        assert_eq!(response.status(), StatusCode::OK);
        Ok(response.into_body().collect().await?.to_bytes())
    })
}

#[test]
fn requests_follow_each_other_on_one_connection() {
    balanced(LIMIT, || {
        let server = Server::start();
        let mut sender = connect(server.address);
        for number in 0..20 {
            let path = format!("/hello/{number}");
            let body = ask(&mut sender, request(Method::GET, &path, "")).unwrap();
            assert_eq!(body, format!("hello, {number}"));
        }
        let large = Bytes::from(vec![7; 1 << 20]);
        let echoed = ask(&mut sender, request(Method::POST, "/echo", large.clone())).unwrap();
        assert!(echoed == large);
        assert_eq!(server.accepted.get(), 1);
    });
}

#[test]
fn a_body_comes_in_parts_as_another_tasklet_makes_them() {
    balanced(LIMIT, || {
        let server = Server::start();
        let mut sender = connect(server.address);
        let sum = block_on(async {
            let wanted = request(Method::GET, "/parts", "");
            let mut body = sender.send_request(wanted).await.unwrap().into_body();
            let (mut sum, mut frames) = (0, 0);
            while let Some(frame) = body.frame().await {
                let data = frame.unwrap().into_data().unwrap();
                sum += data.iter().map(|&byte| usize::from(byte)).sum::<usize>();
                frames += 1;
            }
            assert!(frames > 1);
            sum
        });
        assert_eq!(sum, PART * PARTS * (PARTS - 1) / 2);
    });
}

#[test]
fn a_hundred_tasklets_ask_at_once() {
    balanced(LIMIT, || {
        let server = Server::start();
        let address = server.address;
        let clients: Vec<_> = (0..100)
            .map(|client| {
                pila::tasklet(move || {
                    let mut sender = connect(address);
                    for number in 0..10 {
                        let path = format!("/hello/{client}-{number}");
                        let body = ask(&mut sender, request(Method::GET, &path, "")).unwrap();
                        assert_eq!(body, format!("hello, {client}-{number}"));
                    }
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        assert_eq!(server.accepted.get(), 100);
    });
}

#[test]
fn a_server_that_is_stopped_ends_its_clients_requests() {
    balanced(LIMIT, || {
        let server = Server::start();
        let address = server.address;
        let clients: Vec<_> = (0..20)
            .map(|_| {
                pila::tasklet(move || {
                    let mut sender = connect(address);
                    loop {
                        if let Err(error) = ask(&mut sender, request(Method::GET, "/parts", "")) {
                            return error;
                        }
                    }
                })
            })
            .collect();
        pila::sleep(Duration::from_millis(20));
        drop(server);
        for client in clients {
            let error = client.join().unwrap();
            assert!(
                error.is_incomplete_message()
                    || error.is_body_write_aborted()
                    || error.is_canceled()
                    || error.is_closed()
                    || error.is_parse()
                    || std::error::Error::source(&error)
                        .is_some_and(|source| source.is::<io::Error>()),
                "{error:?}"
            );
        }
    });
}

#[test]
fn a_request_that_takes_too_long_is_given_up() {
    balanced(LIMIT, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let silent = pila::tasklet(move || listener.accept().unwrap());
        let mut sender = connect(address);
        let limit = Duration::from_millis(5);
        let late = pila::timeout(limit, || ask(&mut sender, request(Method::GET, "/", "")));
        assert_eq!(late.unwrap_err().limit(), limit);
        drop(silent.join().unwrap());
    });
}

#[test]
fn curl_is_served_and_keeps_its_connection() {
    let Some(curl) = peer("curl") else { return };
    balanced(LIMIT, move || {
        let server = Server::start();
        let url = |path| format!("http://{}{path}", server.address);
        let output = Command::new(curl)
            .args(["-sS", "--fail", &url("/hello/curl"), &url("/hello/again"), &url("/parts")])
            .args(["-o", "-", "-o", "-", "-o", "/dev/null"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stdout, b"hello, curlhello, again");
        assert_eq!(server.accepted.get(), 1);
    });
}
