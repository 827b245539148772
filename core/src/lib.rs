//! What every part of Edict speaks: the kinds of configuration, the guard that refuses hostile
//! values, the resolution of layers into resources, and the messages between operator and agent.
//!
//! Nothing here knows Kubernetes or touches a host. Operator and agent call the same functions, so
//! that both come to the same verdict on the same value.
//!
//! ```text
//! Config --guard--> [Violation]        what is refused, and why
//! Config --render-> [Resource]         the instruction set of a host: File, Keys, Unit
//! Config --programs-> [Program]        what is run on a host, by the catalogue
//! [Layer] --resolve-> Resolution       one owner for each file or key, and the conflicts
//! ```

pub mod catalogue;
pub mod config;
pub mod content;
pub mod decode;
pub mod digest;
pub mod format;
pub mod guard;
pub mod layer;
pub mod log;
pub mod resolve;
pub mod resource;
pub mod retry;
pub mod setting;
pub mod wire;
