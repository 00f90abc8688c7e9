//! The plan of a scenario: its messages, and the source that reads them again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::scenario::SourceFault;
use super::world::World;
use crate::apply::feed::{FeedError, FeedSender, PlanSource};
use crate::domain::canonical::ContentDigest;
use crate::domain::coupon::CouponCode;
use crate::domain::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::domain::message::{Digester, Message, TemplateHead};
use crate::domain::phone::E164;
use crate::domain::row::{RowLocation, RowOrigin};
use crate::ledger::{SendKey, Snapshot};
use crate::plan::{Desired, SendStatus};

const FIRST_NUMBER: u64 = 919_800_000_000;

/// The send key of a person.
pub(super) fn key(person: u64) -> SendKey {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&person.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key[8..].copy_from_slice(&person.to_be_bytes());
    SendKey(key)
}

/// The person behind a number.
pub(super) fn person_of(address: E164) -> u64 {
    address.digits() - FIRST_NUMBER
}

/// Every message of the campaign, as it is planned over this snapshot.
pub(super) fn messages(world: &World, snapshot: &Snapshot) -> Vec<Box<Desired>> {
    let spent: BTreeSet<&str> = snapshot.spent_codes.iter().map(|code| &**code).collect();
    let template = Arc::new(TemplateHead {
        key: "en".into(),
        name: "lto".into(),
        language: None,
        offer_text: "Offer".into(),
        has_expiration: false,
        body: "Hi".into(),
        button_label: "Shop".into(),
        button_url: "https://example.com".into(),
    });
    let scenario = &world.scenario;
    let mut messages = Vec::new();
    for person in 0..scenario.people {
        let key = key(person);
        let recorded = snapshot.sends.get(&key);
        let Some(address) = E164::parse_exact(&format!("+{}", FIRST_NUMBER + person)) else { continue };
        let code = match recorded {
            Some(recorded) => recorded.coupon.to_owned(),
            None if scenario.unique_codes => code_of(person, &spent),
            None => "SAME".to_owned(),
        };
        let Ok(coupon) = CouponCode::new(&code) else { continue };
        let message = Message {
            template: Arc::clone(&template),
            media: None,
            params: Vec::new(),
            url_param: None,
            coupon,
            expiry: None,
        };
        let (_, head) = Digester::new(address).digests(&message);
        let mut entry = [0; 32];
        entry[..8].copy_from_slice(&person.to_be_bytes());
        entry[8..8 + code.len().min(24)].copy_from_slice(&code.as_bytes()[..code.len().min(24)]);
        let mut digest = [0; 32];
        if scenario.unique_codes {
            digest[..8].copy_from_slice(&person.to_be_bytes());
        }
        messages.push(Box::new(Desired {
            origin: RowOrigin { source: 0, location: RowLocation::Line(person) },
            address,
            row: Arc::default(),
            key,
            message,
            digest: ContentDigest(digest),
            head,
            status: SendStatus::of(recorded, scenario.retry_rejected, &snapshot.live),
            entry,
            ordinal: person,
            identity: address.identity(),
        }));
    }
    messages
}

/// The first code of a person that nobody else has.
fn code_of(person: u64, spent: &BTreeSet<&str>) -> String {
    let candidates = ('C'..='Z').map(|letter| format!("{letter}{person}"));
    candidates.into_iter().find(|code| !spent.contains(code.as_str())).unwrap_or_else(|| format!("AA{person}"))
}

/// Gives the messages again, with the scenario's fault.
pub(super) struct SimSource {
    pub(super) world: Arc<World>,
    pub(super) rounds: AtomicU32,
}

impl PlanSource for SimSource {
    fn start(&self, snapshot: Arc<Snapshot>, feed: FeedSender) {
        let round = self.rounds.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::spawn(read(Arc::clone(&self.world), snapshot, feed, round));
    }
}

async fn read(world: Arc<World>, snapshot: Arc<Snapshot>, mut feed: FeedSender, round: u32) {
    let calm = world.seen(|seen| seen.calm);
    let fault = if calm { SourceFault::None } else { world.scenario.source };
    let broken = || Diagnostics(vec![Diagnostic::error(Code::CsvUnreadable, "simulated")]);
    if matches!(fault, SourceFault::Unreadable { from_round } if round >= from_round) {
        return feed.finish(Err(FeedError::Open(broken()))).await;
    }
    for (position, mut message) in (0..).zip(messages(&world, &snapshot)) {
        match fault {
            SourceFault::Changed { at } if at == position => message.entry[31] ^= 1,
            SourceFault::Truncated { at } if at == position => {
                return feed.finish(Err(FeedError::Read(broken()))).await;
            }
            // A source that panics drops its end of the feed.
            SourceFault::Crash { at } if at == position => return,
            _ => {}
        }
        if matches!(message.status, SendStatus::Send(_)) && feed.send(message).await.is_break() {
            break;
        }
    }
    feed.finish(Ok(())).await;
}
