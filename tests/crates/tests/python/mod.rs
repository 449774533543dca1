//! Peers in Python, each a few lines that print the port they listen at.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
};

use crate::system::{Process, peer};

/// Debian's, which Debian's packages of modules are for.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// Whether there is a Python with this module; if not, the test has to be left out.
#[track_caller]
pub(crate) fn has_python_with(module: &str) -> bool {
    let is_there = |path: &str| {
        let import = format!("import {module}");
        let status = Command::new(path).args(["-c", &import]).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    peer("python3").is_some() && (is_there(PYTHON) || peer(&format!("python3-{module}")).is_some())
}

/// A server that runs `script`.
pub(crate) struct Python {
    _process: Process,
    pub(crate) address: SocketAddr,
}

impl Python {
    pub(crate) fn serve(script: &str) -> Self {
        let mut process =
            Process::start(Command::new(PYTHON).args(["-c", script]).stdout(Stdio::piped()));
        let mut port = String::new();
        BufReader::new(process.0.stdout.as_mut().unwrap()).read_line(&mut port).unwrap();
        let port: u16 = port.trim().parse().unwrap_or_else(|_| panic!("no port but {port:?}"));
        Self { _process: process, address: (Ipv4Addr::LOCALHOST, port).into() }
    }
}
