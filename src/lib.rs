#![doc = include_str!("../README.md")]

#[doc(inline)]
pub use pila_net as net;
#[doc(inline)]
pub use pila_net::process;
pub use pila_runtime::*;
