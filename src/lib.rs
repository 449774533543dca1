#![doc = include_str!("../README.md")]

pub use pila_runtime::*;
