#![doc = include_str!("../README.md")]

#[doc(inline)]
pub use pila_net as net;
pub use pila_runtime::*;
