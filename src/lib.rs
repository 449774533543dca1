#![doc = include_str!("../README.md")]

#[doc(inline)]
pub use pila_net as net;
#[doc(inline)]
pub use pila_net::process;
#[cfg(feature = "tls")]
#[doc(inline)]
pub use pila_net::tls;
pub use pila_runtime::*;

/// What the documents beside the README show, tried as they stand.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../docs/endings.md")]
    mod endings {}
}
