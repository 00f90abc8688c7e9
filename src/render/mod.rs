//! From a template and a row to the content of a message.
//!
//! * [`environment`] compiles expressions and renders them; `language` limits what they can do, and `plain` is
//!   the fast path for texts that only print columns.
//! * [`compose`] renders all parts of one message.
//! * [`limits`] checks them against WhatsApp's limits.

pub mod compose;
pub mod environment;
mod language;
pub mod limits;
mod plain;

pub use compose::{CompiledTemplate, Composer, Content, HeaderMedia, RenderFailure, RenderFailureKind};
pub use environment::{CompileError, Field, NAMES, References};
