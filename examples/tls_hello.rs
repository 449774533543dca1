//! A hundred clients and their server under TLS, all on one thread: each handshake is written as if it were alone, and
//! while one waits for its peer the others go on.
//!
//!     cargo run --release --example tls_hello
//!
//! The certificate is made on the spot, so the clients are told to trust it. Whoever talks to the world's servers calls
//! `tls::connect` instead, which asks the system whom to trust.
//!
//!     100 clients were greeted under TLS 1.3
//!     asked for example.org, it is only localhost

use std::{
    cell::Cell,
    error::Error,
    io::{self, BufRead, Write},
    net::SocketAddr,
    sync::Arc,
};

use pila::{
    net::{TcpListener, TcpStream},
    tls::{
        self, HandshakeReason,
        rustls::{ClientConfig, ProtocolVersion::TLSv1_3, ServerConfig},
    },
};

/// Asks whoever serves `host` for a greeting. Says whether it came under TLS 1.3.
fn greeted(config: Arc<ClientConfig>, host: &str, address: SocketAddr) -> io::Result<bool> {
    let mut stream = tls::connect_with(config, host, TcpStream::connect(address)?)?;
    stream.write_all(b"hello\n")?;
    let mut greeting = String::new();
    stream.read_line(&mut greeting)?;
    let well = greeting == "hello yourself\n";
    let version = stream.connection().protocol_version();
    stream.close()?;
    Ok(well && version == Some(TLSv1_3))
}

/// Greets whoever says hello, each client in a tasklet of its own.
fn serve(config: &Arc<ServerConfig>, listener: &TcpListener) {
    for stream in listener.incoming().map_while(Result::ok) {
        let config = config.clone();
        pila::tasklet(move || {
            let mut stream = tls::accept(config, stream)?;
            let mut hello = String::new();
            stream.read_line(&mut hello)?;
            writeln!(stream, "{} yourself", hello.trim_end())?;
            stream.close()
        });
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let own = rcgen::generate_simple_self_signed(["localhost".to_string()])?;
    let server = tls::server_config(own.cert.pem(), own.signing_key.serialize_pem())?;
    let client = tls::client_config_trusting(own.cert.pem())?;

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    pila::tasklet(move || serve(&server, &listener));

    let count = Cell::new(0);
    pila::scope(|s| {
        for _ in 0..100 {
            s.tasklet(|| match greeted(client.clone(), "localhost", address) {
                Ok(true) => count.set(count.get() + 1),
                other => eprintln!("{other:?}"),
            });
        }
    });
    println!("{} clients were greeted under TLS 1.3", count.get());

    // The error itself says what to do; the reason inside is for programs.
    let error = greeted(client, "example.org", address).unwrap_err();
    match tls::HandshakeError::of(&error).map(|error| &error.reason) {
        Some(HandshakeReason::OtherName { names }) => {
            println!("asked for example.org, it is only {}", names.join(", "));
        }
        _ => return Err(error.into()),
    }
    Ok(())
}
