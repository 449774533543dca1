#![doc = include_str!("../README.md")]

pub use pila_net as net;
pub use pila_runtime::*;
