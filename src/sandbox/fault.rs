//! Faults: the ways in which a real provider fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A way to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The connection drops before the request is read. The message is not accepted.
    ResetBefore,
    /// The connection drops after the message was accepted.
    ResetAfter,
    /// 429. The message is not accepted.
    TooMany,
    /// 500. The message is not accepted.
    ErrorBefore,
    /// 500 after the message was accepted.
    ErrorAfter,
    /// The message is accepted, and the body of the response breaks off.
    Garbled,
}

impl Fault {
    /// The names that `--fault` takes.
    pub const NAMES: [(&'static str, Fault); 6] = [
        ("reset-before", Fault::ResetBefore),
        ("reset-after", Fault::ResetAfter),
        ("429", Fault::TooMany),
        ("500-before", Fault::ErrorBefore),
        ("500-after", Fault::ErrorAfter),
        ("garbled", Fault::Garbled),
    ];
}

/// One `--fault`: a way to fail, with a probability or for one recipient.
#[derive(Debug, Clone, PartialEq)]
pub enum FaultRule {
    /// With a probability from 0 to 1 for each request.
    Probability(Fault, f64),
    /// For each request to this number (digits only).
    Recipient(Fault, String),
}

impl std::str::FromStr for FaultRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Fault::NAMES.map(|(name, _)| name).join(", ");
        let (name, amount) = text
            .split_once('=')
            .ok_or_else(|| format!("write `NAME=PROBABILITY` or `NAME=+NUMBER`; the names are {}", names()))?;
        let fault = Fault::NAMES.iter().find(|(known, _)| *known == name).map(|(_, fault)| *fault);
        let fault = fault.ok_or_else(|| format!("unknown fault `{name}`; the names are {}", names()))?;
        if let Some(number) = amount.strip_prefix('+') {
            let digits: String = number.chars().filter(char::is_ascii_digit).collect();
            return if digits.is_empty() {
                Err(format!("`{amount}` is not a phone number"))
            } else {
                Ok(FaultRule::Recipient(fault, digits))
            };
        }
        let probability = match amount.strip_suffix('%') {
            Some(percent) => percent.parse::<f64>().map(|percent| percent / 100.0),
            None => amount.parse::<f64>(),
        };
        match probability {
            Ok(probability) if (0.0..=1.0).contains(&probability) => Ok(FaultRule::Probability(fault, probability)),
            _ => Err(format!("`{amount}` is not a probability from 0 to 1, such as `0.1` or `10%`")),
        }
    }
}

/// All faults of a sandbox. They are drawn from a seed, so a run can be repeated.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    probabilities: Vec<(Fault, f64)>,
    recipients: BTreeMap<String, Fault>,
    state: Arc<AtomicU64>,
}

impl Faults {
    /// Creates the faults that these rules describe. The probabilities must add up to at most 1.
    pub fn new(rules: &[FaultRule], seed: u64) -> Result<Self, String> {
        let mut faults = Faults { state: Arc::new(AtomicU64::new(seed)), ..Faults::default() };
        for rule in rules {
            match rule {
                FaultRule::Probability(fault, probability) => faults.probabilities.push((*fault, *probability)),
                FaultRule::Recipient(fault, number) => drop(faults.recipients.insert(number.clone(), *fault)),
            }
        }
        let total: f64 = faults.probabilities.iter().map(|(_, probability)| probability).sum();
        if total > 1.0 + 1e-9 {
            Err(format!("the probabilities of the faults add up to {total}, which is more than 1"))
        } else {
            Ok(faults)
        }
    }

    /// Draws the fault of the next request, if it gets one.
    pub fn draw(&self) -> Option<Fault> {
        if self.probabilities.is_empty() {
            return None;
        }
        // SplitMix64: its state is a counter, so concurrent draws never get the same value.
        let state = self.state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mut point = ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
        for (fault, probability) in &self.probabilities {
            if point < *probability {
                return Some(*fault);
            }
            point -= probability;
        }
        None
    }

    /// The fault of a request to these recipients (separated by commas), if a rule names one of them.
    pub fn for_recipient(&self, to: Option<&str>) -> Option<Fault> {
        to?.split(',').find_map(|number| self.recipients.get(number.trim().trim_start_matches('+')).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_has_a_probability_or_a_recipient() {
        assert_eq!("429=0.1".parse(), Ok(FaultRule::Probability(Fault::TooMany, 0.1)));
        assert_eq!("garbled=10%".parse(), Ok(FaultRule::Probability(Fault::Garbled, 0.1)));
        assert_eq!("reset-after=+91 98765".parse(), Ok(FaultRule::Recipient(Fault::ResetAfter, "9198765".into())));
        for text in ["429", "429=2", "nothing=0.1", "429=x", "429=+"] {
            assert!(text.parse::<FaultRule>().is_err(), "{text}");
        }
    }

    #[test]
    fn faults_are_drawn_with_their_probabilities() {
        let rules = |first, second| {
            [FaultRule::Probability(Fault::TooMany, first), FaultRule::Probability(Fault::Garbled, second)]
        };
        let faults = Faults::new(&rules(0.1, 0.2), 7).unwrap();
        let drawn: Vec<_> = (0..20_000).map(|_| faults.draw()).collect();
        let frequency = |fault| drawn.iter().filter(|drawn| **drawn == fault).count() as f64 / 20_000.0;
        assert!((frequency(Some(Fault::TooMany)) - 0.1).abs() < 0.01);
        assert!((frequency(Some(Fault::Garbled)) - 0.2).abs() < 0.01);
        assert!(Faults::new(&rules(0.6, 0.6), 7).is_err());
    }
}
