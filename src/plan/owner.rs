//! Whether the record under a campaign's name is this campaign's.
//!
//! Nobody gets the same name and edition twice. So a second campaign under the name of the first would reach nobody
//! and say that everything is sent, and so would a campaign that was tried against a sandbox process with the real
//! ledger. Each run says which manifest it sent, from which number and account, and to which host. A plan that does not
//! fit what the last run says is refused, unless a person says that it is the same campaign.
//!
//! Runs of older versions do not say it, and are believed.

use crate::ledger::RunRecord;

/// What a plan says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The name that the campaign is recorded under.
    pub record: String,
    /// Its edition.
    pub edition: u32,
    /// The manifest's path below the project's root.
    pub manifest: String,
    /// `sandbox`, `loopback`, or the provider's host name.
    pub destination: String,
    /// The number that messages come from.
    pub sender: String,
    /// The fingerprint of the account, once the SID is known.
    pub account: Option<String>,
}

/// What a person says of a plan that does not fit the record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowed {
    /// The provider has moved to another host.
    pub gateway_moved: bool,
    /// It is the same campaign, though its file, sender or account is another.
    pub same_name: bool,
}

/// Why the record is not this campaign's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOwner {
    /// It was sent through another host.
    #[error("the record of `{name}` (edition {edition}) belongs to {recorded}, and this plan sends through {planned}")]
    Host {
        /// The campaign.
        name: String,
        /// Its edition.
        edition: u32,
        /// The record's host.
        recorded: String,
        /// The plan's host.
        planned: String,
    },
    /// It was sent from another file, number or account.
    #[error("`{name}` was sent before {recorded}, and this is {planned}: two campaigns cannot have one name")]
    Campaign {
        /// The name.
        name: String,
        /// What the record says.
        recorded: String,
        /// What the plan says.
        planned: String,
    },
}

impl NotOwner {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            NotOwner::Host { .. } => {
                "whoever got a message from there counts as having got this campaign; try a campaign with `--sandbox`, or raise `edition` to send it to everybody; if the provider moved to another host, pass `--gateway-moved`"
            }
            NotOwner::Campaign { .. } => {
                "whoever got the one would not get the other; give this campaign another name, or, if it is the same one, pass `--allow-same-name`"
            }
        }
    }
}

/// Checks a plan against what was recorded under its name.
pub fn check(runs: &[RunRecord], subject: &Subject, allowed: Allowed) -> Result<(), NotOwner> {
    let mut own = runs.iter().rev().filter(|run| run.campaign == subject.record && may_have_sent(run));
    let name = &subject.record;
    if !allowed.gateway_moved {
        // Another edition is another record.
        let host = own
            .clone()
            .filter(|run| run.edition == subject.edition)
            .find_map(|run| run.destination.as_ref())
            .filter(|host| **host != subject.destination);
        if let Some(recorded) = host {
            return Err(NotOwner::Host {
                name: name.clone(),
                edition: subject.edition,
                recorded: host_in_words(recorded),
                planned: host_in_words(&subject.destination),
            });
        }
    }
    if allowed.same_name {
        return Ok(());
    }
    let differs = |recorded: String, planned: String| Err(NotOwner::Campaign { name: name.clone(), recorded, planned });
    let Some(last) = own.find(|run| run.manifest.is_some()) else { return Ok(()) };
    if let Some(manifest) = last.manifest.as_ref().filter(|manifest| **manifest != subject.manifest) {
        return differs(format!("from `{manifest}`"), format!("`{}`", subject.manifest));
    }
    if let Some(sender) = last.sender.as_ref().filter(|sender| **sender != subject.sender) {
        let ending = |number: &str| super::fingerprint::last_digits(number).to_owned();
        return differs(
            format!("from the number ending {}", ending(sender)),
            format!("from the number ending {}", ending(&subject.sender)),
        );
    }
    if let (Some(recorded), Some(planned)) = (&last.account, &subject.account)
        && recorded != planned
    {
        return differs(format!("from the account {recorded}"), format!("from the account {planned}"));
    }
    Ok(())
}

/// Whether a run may have reached anybody: one that ended without an outcome has not.
fn may_have_sent(run: &RunRecord) -> bool {
    run.counts.is_none_or(|counts| counts.accepted + counts.rejected + counts.unknown > 0)
}

fn host_in_words(destination: &str) -> String {
    match destination {
        "sandbox" => "the embedded sandbox".to_owned(),
        "loopback" => "a server on this machine (loopback)".to_owned(),
        host => format!("`{host}`"),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use std::time::Duration;

    use super::*;
    use crate::ledger::RunCounts;

    fn subject() -> Subject {
        Subject {
            record: "diwali".to_owned(),
            edition: 1,
            manifest: "campaigns/diwali.yaml".to_owned(),
            destination: "api.in.kaleyra.io".to_owned(),
            sender: "+919900112233".to_owned(),
            account: Some("a1".to_owned()),
        }
    }

    /// A run that this subject has made.
    fn run(subject: &Subject) -> RunRecord {
        RunRecord {
            id: 1,
            campaign: subject.record.clone(),
            edition: subject.edition,
            name: subject.record.clone(),
            plan_hash: String::new(),
            planned_at: Timestamp::UNIX_EPOCH,
            recipients: 3,
            manifest: Some(subject.manifest.clone()),
            destination: Some(subject.destination.clone()),
            account: subject.account.clone(),
            sender: Some(subject.sender.clone()),
            environment: None,
            longest_request: None,
            lease: Duration::ZERO,
            silent: Duration::ZERO,
            host: String::new(),
            actor: String::new(),
            pid: 1,
            version: String::new(),
            started_at: Timestamp::UNIX_EPOCH,
            heartbeat_at: None,
            ended_at: None,
            ending: None,
            counts: Some(RunCounts { accepted: 3, ..RunCounts::default() }),
            live: false,
            digest: None,
        }
    }

    fn changed(change: impl Fn(&mut Subject)) -> Subject {
        let mut subject = subject();
        change(&mut subject);
        subject
    }

    #[test]
    fn a_record_belongs_to_the_host_that_it_was_sent_through() {
        let trial = run(&changed(|subject| subject.destination = "loopback".to_owned()));
        let refused = check(std::slice::from_ref(&trial), &subject(), Allowed::default()).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("a server on this machine") && text.contains("`api.in.kaleyra.io`"), "{text}");
        let moved = Allowed { gateway_moved: true, ..Allowed::default() };
        assert_eq!(check(std::slice::from_ref(&trial), &subject(), moved), Ok(()));
        // Once it has moved, it belongs there.
        let runs = [trial.clone(), run(&subject())];
        assert_eq!(check(&runs, &subject(), Allowed::default()), Ok(()));
        assert!(
            check(&runs, &changed(|subject| subject.destination = "loopback".to_owned()), Allowed::default()).is_err()
        );
        // Another edition is another record, and so is another campaign.
        assert_eq!(check(&runs[..1], &changed(|subject| subject.edition = 2), Allowed::default()), Ok(()));
        assert_eq!(check(&runs[..1], &changed(|subject| subject.record.push('2')), Allowed::default()), Ok(()));
    }

    #[test]
    fn a_run_that_sent_nothing_and_one_of_an_older_version_say_nothing() {
        let other = changed(|subject| {
            subject.destination = "loopback".to_owned();
            subject.manifest = "other.yaml".to_owned();
        });
        let nothing = RunRecord { counts: Some(RunCounts { not_sent: 5, ..RunCounts::default() }), ..run(&other) };
        let older = RunRecord { manifest: None, destination: None, account: None, ..run(&other) };
        assert_eq!(check(&[nothing.clone(), older], &subject(), Allowed::default()), Ok(()));
        // One that did not get to say what it sent may have sent.
        let killed = RunRecord { counts: None, ..nothing };
        assert!(check(&[killed], &subject(), Allowed::default()).is_err());
    }

    #[test]
    fn another_file_sender_or_account_under_the_same_name_is_refused() {
        let runs = [run(&subject())];
        let allowed = Allowed { same_name: true, ..Allowed::default() };
        for (change, words) in [
            ((|subject| subject.manifest = "b.yaml".to_owned()) as fn(&mut Subject), "`b.yaml`"),
            (|subject| subject.sender = "+919900114455".to_owned(), "ending 4455"),
            (|subject| subject.account = Some("b2".to_owned()), "account b2"),
            // In another edition as well.
            (
                |subject| {
                    subject.edition = 2;
                    subject.manifest = "b.yaml".to_owned();
                },
                "`campaigns/diwali.yaml`",
            ),
        ] {
            let other = changed(change);
            let refused = check(&runs, &other, Allowed::default()).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
            assert!(!refused.contains("99001"), "{refused}");
            assert_eq!(check(&runs, &other, allowed), Ok(()));
        }
        // Before the SID is known, the account is not compared.
        assert_eq!(check(&runs, &changed(|subject| subject.account = None), Allowed::default()), Ok(()));
    }
}
