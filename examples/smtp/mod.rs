//! Both ends of SMTP: the client that sends one mail, and the sink that takes any number of them.

pub(crate) mod blocks;
pub(crate) mod client;
pub(crate) mod envelope;
pub(crate) mod error;
pub(crate) mod ledger;
pub(crate) mod letter;
pub(crate) mod listen;
pub(crate) mod replies;
pub(crate) mod sink;
