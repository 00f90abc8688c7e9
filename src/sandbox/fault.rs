//! Failing on purpose.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// A way to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The connection drops before the request is read: not accepted.
    ResetBefore,
    /// The connection drops after the message was accepted.
    ResetAfter,
    /// 429: not accepted.
    TooMany,
    /// 500: not accepted.
    ErrorBefore,
    /// 500 after the message was accepted.
    ErrorAfter,
    /// A success whose body breaks off: accepted.
    Garbled,
}

impl Fault {
    /// The names, as `--fault` takes them.
    pub const NAMES: [(&'static str, Fault); 6] = [
        ("reset-before", Fault::ResetBefore),
        ("reset-after", Fault::ResetAfter),
        ("429", Fault::TooMany),
        ("500-before", Fault::ErrorBefore),
        ("500-after", Fault::ErrorAfter),
        ("garbled", Fault::Garbled),
    ];
}

/// One `--fault`: a way to fail, for a share of requests or for one recipient.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// A share from 0 to 1.
    Share(Fault, f64),
    /// A number, digits only.
    Recipient(Fault, String),
}

impl std::str::FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Fault::NAMES.map(|(name, _)| name).join(", ");
        let (name, amount) =
            text.split_once('=').ok_or_else(|| format!("write NAME=SHARE or NAME=+NUMBER; names: {}", names()))?;
        let fault = Fault::NAMES.iter().find(|(known, _)| *known == name).map(|(_, fault)| *fault);
        let fault = fault.ok_or_else(|| format!("there is no fault `{name}`; names: {}", names()))?;
        if let Some(number) = amount.strip_prefix('+') {
            let digits: String = number.chars().filter(char::is_ascii_digit).collect();
            return if digits.is_empty() {
                Err(format!("`{amount}` is no number"))
            } else {
                Ok(Rule::Recipient(fault, digits))
            };
        }
        let share = match amount.strip_suffix('%') {
            Some(percent) => percent.parse::<f64>().map(|percent| percent / 100.0),
            None => amount.parse::<f64>(),
        };
        match share {
            Ok(share) if (0.0..=1.0).contains(&share) => Ok(Rule::Share(fault, share)),
            _ => Err(format!("`{amount}` is not a share from 0 to 1, such as `0.1` or `10%`")),
        }
    }
}

/// All faults of a sandbox. Shares are drawn from a seed, so that a run can be repeated.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    shares: Vec<(Fault, f64)>,
    recipients: BTreeMap<String, Fault>,
    state: Arc<AtomicU64>,
}

impl Faults {
    /// Faults by these rules; shares together are at most 1.
    pub fn new(rules: &[Rule], seed: u64) -> Result<Self, String> {
        let mut faults = Faults { state: Arc::new(AtomicU64::new(seed)), ..Faults::default() };
        for rule in rules {
            match rule {
                Rule::Share(fault, share) => faults.shares.push((*fault, *share)),
                Rule::Recipient(fault, number) => drop(faults.recipients.insert(number.clone(), *fault)),
            }
        }
        let total: f64 = faults.shares.iter().map(|(_, share)| share).sum();
        if total > 1.0 + 1e-9 { Err(format!("the shares add up to {total}, which is more than 1")) } else { Ok(faults) }
    }

    /// The fault of the next request, if it has one.
    pub fn draw(&self) -> Option<Fault> {
        if self.shares.is_empty() {
            return None;
        }
        // SplitMix64: its state is a counter, so concurrent draws never repeat one another.
        let state = self.state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mut point = ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
        for (fault, share) in &self.shares {
            if point < *share {
                return Some(*fault);
            }
            point -= share;
        }
        None
    }

    /// The fault of a request to these recipients (comma separated), if one of them has one.
    pub fn for_recipient(&self, to: Option<&str>) -> Option<Fault> {
        to?.split(',').find_map(|number| self.recipients.get(number.trim().trim_start_matches('+')).copied())
    }
}

/// Cuts a connection, so that the client sees a reset.
#[derive(Debug, Clone)]
pub struct Abort(Arc<AtomicBool>);

impl Abort {
    /// Lets the next write of the connection fail.
    pub fn now(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A listener whose connections can be cut.
pub(super) struct Listener(pub(super) TcpListener);

/// A connection that can be cut.
pub(super) struct Connection {
    stream: TcpStream,
    abort: Abort,
}

impl Connection {
    pub(super) fn abort(&self) -> Abort {
        self.abort.clone()
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.0.accept().await {
                Ok((stream, address)) => {
                    let _ = stream.set_nodelay(true);
                    return (Connection { stream, abort: Abort(Arc::default()) }, address);
                }
                // Such as too many open files: the next moment may be better.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.abort.0.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_shares_or_recipients() {
        assert_eq!("429=0.1".parse(), Ok(Rule::Share(Fault::TooMany, 0.1)));
        assert_eq!("garbled=10%".parse(), Ok(Rule::Share(Fault::Garbled, 0.1)));
        assert_eq!("reset-after=+91 98765".parse(), Ok(Rule::Recipient(Fault::ResetAfter, "9198765".into())));
        for text in ["429", "429=2", "nothing=0.1", "429=x", "429=+"] {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
    }

    #[test]
    fn shares_are_drawn_as_often_as_they_say() {
        let faults = Faults::new(&[Rule::Share(Fault::TooMany, 0.1), Rule::Share(Fault::Garbled, 0.2)], 7).unwrap();
        let drawn: Vec<_> = (0..20_000).map(|_| faults.draw()).collect();
        let share = |fault| drawn.iter().filter(|drawn| **drawn == fault).count() as f64 / 20_000.0;
        assert!((share(Some(Fault::TooMany)) - 0.1).abs() < 0.01);
        assert!((share(Some(Fault::Garbled)) - 0.2).abs() < 0.01);
        assert!(Faults::new(&[Rule::Share(Fault::TooMany, 0.6), Rule::Share(Fault::Garbled, 0.6)], 7).is_err());
    }
}
