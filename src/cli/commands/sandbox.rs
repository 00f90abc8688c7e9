//! `sendform sandbox`

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::ui::Ui;
use crate::domain::diagnostic::Code;
use crate::domain::expiry::parse_duration;
use crate::sandbox::{self, Config, FaultRule, Faults, Sandbox};

/// Run a stand-in provider on this machine, with an inbox page
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendform sandbox --listen 127.0.0.1:4010
  sendform sandbox --latency 50ms --fault 429=5% --fault reset-after=0.01
  sendform sandbox --fault 500-after=+919876543210

Faults: reset-before, reset-after, 429, 500-before, 500-after, garbled.
The first line on standard output is the address; GET /sandbox/messages lists the accepted messages.")]
pub(crate) struct SandboxArgs {
    /// Address to listen on; loopback only. Port 0 takes a free port
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR")]
    listen: SocketAddr,
    /// Time that each response takes, such as 50ms
    #[arg(long, value_parser = duration, value_name = "TIME")]
    latency: Option<Duration>,
    /// Fail with a probability, or for one recipient
    #[arg(long = "fault", value_name = "NAME=PROBABILITY|NAME=+NUMBER")]
    faults: Vec<FaultRule>,
    /// Seed of the random faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// SID that requests must have
    #[arg(long, default_value = sandbox::SID)]
    sid: String,
    /// API key that requests must have
    #[arg(long, default_value = sandbox::API_KEY)]
    api_key: String,
}

fn duration(text: &str) -> Result<Duration, String> {
    if matches!(text, "0" | "0s" | "0ms") {
        return Ok(Duration::ZERO);
    }
    parse_duration(text).map_err(|_| "write a time with its unit, such as `50ms`".to_owned())
}

pub(crate) fn run(ui: &Ui, args: &SandboxArgs) -> Result<Exit, CommandError> {
    let faults = Faults::new(&args.faults, args.seed).map_err(CommandError::usage)?;
    let config = Config {
        listen: args.listen,
        sid: args.sid.clone(),
        api_key: args.api_key.clone(),
        latency: args.latency.unwrap_or_default(),
        faults,
        ..Config::default()
    };
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| CommandError::new(Exit::Error, Code::Internal, format!("cannot start: {error}")))?;
    runtime.block_on(async {
        let sandbox = Sandbox::start(config).await.map_err(|error| {
            CommandError::new(
                Exit::Error,
                Code::SandboxFailed,
                format!("the sandbox cannot listen on {}: {error}", args.listen),
            )
        })?;
        ui.data(&format!("{}\n", sandbox.url()))?;
        ui.say(&format!(
            "SID {}, API key {}. Open the address in a browser to see the inbox. Press Ctrl-C to stop.",
            args.sid, args.api_key
        ));
        crate::cli::signals::Signals::new().next().await;
        Ok(Exit::Done)
    })
}
