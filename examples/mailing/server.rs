//! `Server`: who takes the mails, a real server or a sink of our own.

use std::{io, net::SocketAddr, time::Duration};

use super::{
    options::Options,
    sink_process::{Order, SinkProcess},
    tally::Tally,
};

/// Where the mails go.
pub(crate) enum Server {
    /// A sink of our own, which can say what it has received.
    Own(Box<SinkProcess>),
    /// Somebody else's server, at one of these addresses.
    Real(Vec<SocketAddr>),
}

impl Server {
    /// The server `options` ask for; starts one if they name none.
    pub(crate) fn find(options: &Options) -> io::Result<Self> {
        match &options.server {
            Some(addresses) => Ok(Self::Real(addresses.0.clone())),
            None => SinkProcess::start(&order(options)).map(Box::new).map(Self::Own),
        }
    }

    /// The addresses to try.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Self::Own(sink) => vec![sink.address],
            Self::Real(addresses) => addresses.clone(),
        }
    }

    /// Whether the server has received what `tally` says was sent, as far as it can be asked. Ends a sink of our own.
    pub(crate) fn confirms(self, tally: &Tally) -> bool {
        let Self::Own(sink) = self else {
            return true;
        };
        match sink.finish() {
            Ok(report) => {
                println!("received: {report}");
                report.bears_out(tally.sent.get() as usize)
            }
            Err(error) => {
                eprintln!("stackless: {error}");
                false
            }
        }
    }
}

/// What a sink is told that is to take the mails `options` speak of.
fn order(options: &Options) -> Order {
    Order {
        mails: options.mails,
        body_size: options.body_size as usize,
        greeting_delay: options.delay,
        reply_delay: Duration::ZERO,
    }
}
