//! The `sendform` program; everything is in the library.

fn main() -> std::process::ExitCode {
    sendform::cli::run()
}
