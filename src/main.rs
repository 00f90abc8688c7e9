//! The `sendform` program; everything is in the library.

/// Messages are made on one thread and end on another, which the system's allocator makes slow.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    sendform::cli::run()
}
