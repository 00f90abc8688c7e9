//! What is PostgreSQL's alone: several appliers, and connections that break.
