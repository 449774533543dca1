//! What a program that sends many mails needs beside SMTP: its options, its connections, its score.

pub(crate) mod command_line;
pub(crate) mod connection;
pub(crate) mod descriptors;
pub(crate) mod options;
pub(crate) mod outbox;
pub(crate) mod progress;
pub(crate) mod server;
pub(crate) mod sink_process;
pub(crate) mod status;
pub(crate) mod tally;
