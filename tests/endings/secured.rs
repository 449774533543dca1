//! The calls of TLS that wait.

use std::io::{Read, Write};

use pila::{
    net::TcpStream,
    offload_pool, tasklet,
    tls::{self, TlsStream},
};

use crate::{
    calls::{Call, Ready, ready},
    net_support::{FLOOD, pair},
    system::{PATIENCE, until},
};

/// A call on a stream whose other end keeps silent.
fn silently(call: impl FnOnce(TcpStream) + 'static) -> Ready {
    let (mine, peer) = pair();
    ready(move || call(mine)).and_after(move || drop(peer))
}

/// A certificate of its own making, and its key.
fn certificate() -> [String; 2] {
    let own = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
    [own.cert.pem(), own.signing_key.serialize_pem()]
}

/// A call on one side of a connection under TLS, whose other side keeps silent.
fn under_tls(call: impl FnOnce(TlsStream<TcpStream>) + 'static) -> Ready {
    let (mine, peer) = pair();
    let [certificate, key] = certificate();
    let server = tls::server_config(&certificate, key).unwrap();
    let accepting = tasklet(move || tls::accept(server, peer).unwrap());
    let client = tls::client_config_trusting(&certificate).unwrap();
    let mine = tls::connect_with(client, "localhost", mine).unwrap();
    let peer = accepting.join().unwrap();
    ready(move || call(mine)).and_after(move || drop(peer))
}

pub(crate) const CALLS: &[Call] = &[
    Call {
        name: "`tls::connect`",
        set_up: || {
            // Not while the descriptors are counted: a thread of the pool has files open, and holds our poller until it rests.
            tls::system_roots().expect("certificates are installed");
            until("the pool rests", PATIENCE, || {
                let pool = offload_pool();
                (pool.idle == pool.threads).then_some(())
            });
            silently(|stream| drop(tls::connect("localhost", stream)))
        },
    },
    Call {
        name: "`tls::connect_with`",
        set_up: || {
            let config = tls::client_config_trusting(&certificate()[0]).unwrap();
            silently(move |stream| drop(tls::connect_with(config, "localhost", stream)))
        },
    },
    Call {
        name: "`tls::accept`",
        set_up: || {
            let [certificate, key] = certificate();
            let config = tls::server_config(certificate, key).unwrap();
            silently(move |stream| drop(tls::accept(config, stream)))
        },
    },
    Call {
        name: "`TlsStream::read`",
        set_up: || under_tls(|mut stream| drop(stream.read(&mut [0; 8]))),
    },
    Call {
        name: "`TlsStream::write`",
        set_up: || under_tls(|mut stream| drop(stream.write_all(&vec![0; FLOOD]))),
    },
    Call { name: "`TlsStream::close`", set_up: || under_tls(|stream| drop(stream.close())) },
];
