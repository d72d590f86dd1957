//! What the end-to-end tests stand on: a lab with a director's daemon in it
//! ([`Bed`]), real programs ([`programs`]) and frames made by hand ([`frames`]).

#![forbid(unsafe_code)]

mod bed;
pub mod frames;
pub mod programs;

pub use bed::{ALL_PLANES, ALL_WAYS, AS_PROGRAM, Bed, METHODS, Method, PLANES, Plane, Server, vip};
