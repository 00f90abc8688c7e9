//! One pass over the audience: who would get what, and where their send stands.

use std::ops::ControlFlow;
use std::sync::Arc;

use jiff::Timestamp;

use super::Prepared;
use super::block::{BlockReason, Blocked};
use super::load::Inputs;
use crate::audience::{Audience, AudienceItem, ReadReport};
use crate::coupons::generator::Generator;
use crate::coupons::{CodeTable, Pool};
use crate::domain::campaign::CouponSpec;
use crate::domain::canonical::{Canonical, ContentDigest};
use crate::domain::coupon::CouponCode;
use crate::domain::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::domain::expiry::MessageExpiry;
use crate::domain::message::{Digester, HeadDigest, Message};
use crate::domain::phone::{E164, Identity};
use crate::domain::row::{Row, RowOrigin};
use crate::ledger::{LedgerKey, RecordedSend, SendKey, SendKeys, SendState, Snapshot, content_prefix};

/// How many candidates a generator may go through before its codes count as used up.
const MAX_SALT: u32 = 64;

/// The state of a desired send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendStatus {
    /// To be sent, as this attempt.
    Send(u32),
    /// Accepted by the provider.
    Sent,
    /// Accepted by the provider, with other content than the campaign has now.
    Drifted,
    /// Claimed by a run that is in progress.
    UnderWay,
    /// Started, with an unknown outcome.
    Unknown,
    /// Rejected by the provider.
    Rejected,
}

/// One message that the campaign wants somebody to have.
#[derive(Debug, Clone)]
pub struct Desired {
    /// Which row it is.
    pub origin: RowOrigin,
    /// Whom it goes to.
    pub address: E164,
    /// The row that it was rendered from.
    pub row: Arc<Row>,
    /// Whose send it is.
    pub key: SendKey,
    /// What they get.
    pub message: Message,
    /// A fingerprint of the message, the same for everybody who gets the same.
    pub digest: ContentDigest,
    /// The digest of what most messages share, which [`Desired::similarity_digest`] needs.
    pub head: HeadDigest,
    /// The state of the send.
    pub status: SendStatus,
    /// The recipient and the message, as the plan's hash holds them.
    pub entry: [u8; 32],
    /// How many messages of the campaign stand before this one, sent or not.
    pub ordinal: u64,
    /// Who they are.
    pub identity: Identity,
}

impl Desired {
    /// The similarity digest of the message, see [`Message::similarity_digest`]. It is computed here because most passes do not need it.
    pub fn similarity_digest(&self) -> i64 {
        self.message.similarity_digest(&self.head)
    }
}

/// What a row is in a plan.
#[derive(Debug)]
pub enum Item {
    /// A message.
    Desired(Box<Desired>),
    /// A row that gets no message.
    Blocked(Blocked),
    /// A message for which no code is left.
    NoCodeLeft,
}

/// What a row means for a second pass.
#[derive(Debug)]
pub enum ToSend {
    /// This message is still to be sent.
    Message(Box<Desired>),
    /// Nothing is to be sent for this row.
    Nothing,
}

/// A step of a walk over the rows.
enum Step {
    /// What the row is.
    Item(Item),
    /// The row's message is not to be sent, and was not rendered.
    AlreadyHandled,
}

/// One pass over the audience. Two passes over the same files with the same snapshot give the same.
pub struct Pass<'a> {
    prepared: &'a Prepared,
    audience: Audience,
    snapshot: &'a Snapshot,
    keys: SendKeys,
    codes: Codes,
    expiry: Option<MessageExpiry>,
    retry_rejected: bool,
}

enum Codes {
    One(CouponCode),
    Pool(Pool),
    Generated(Generator, CodeTable),
}

impl<'a> Pass<'a> {
    /// Prepares a pass: waits for the suppression lists and the pool.
    pub fn new(
        prepared: &'a Prepared,
        inputs: Inputs,
        snapshot: &'a Snapshot,
        key: Option<&LedgerKey>,
        planned_at: Timestamp,
        retry_rejected: bool,
    ) -> Result<Self, Diagnostics> {
        let campaign = &prepared.campaign;
        let (audience, pool) = inputs.finish(prepared)?;
        let given_away = || {
            let bound = snapshot.sends.iter().map(|(_, send)| send.coupon);
            bound.chain(snapshot.spent_codes.iter().map(|code| &**code))
        };
        let codes = match &campaign.coupons {
            CouponSpec::Code(code) => Codes::One(code.clone()),
            CouponSpec::Pool(_) => {
                let mut pool = pool.unwrap_or_default();
                given_away().for_each(|code| pool.mark_taken(code));
                Codes::Pool(pool)
            }
            CouponSpec::Generate { prefix, alphabet, length } => {
                let key = key.ok_or_else(|| {
                    Diagnostics::from(Diagnostic::error(
                        Code::LedgerKeyMissing,
                        "codes are generated with the ledger's key, and there is none",
                    ))
                })?;
                let scope = format!("{}/{}", prepared.record_name, campaign.edition);
                let generator = Generator::new(key.for_codes(), scope, prefix, alphabet, *length);
                let mut taken = CodeTable::default();
                given_away().for_each(|code| {
                    let _ = taken.insert(code);
                });
                Codes::Generated(generator, taken)
            }
        };
        Ok(Self {
            prepared,
            audience,
            snapshot,
            keys: match key {
                Some(key) => key.send_keys(&prepared.record_name, campaign.edition),
                None => SendKeys::without_ledger(&prepared.record_name, campaign.edition),
            },
            codes,
            expiry: campaign.expiry.as_ref().map(|expiry| expiry.rule().resolve(planned_at)),
            retry_rejected,
        })
    }

    /// How many codes of a pool can be given away; `None` for other kinds of coupons.
    pub fn free_codes(&self) -> Option<u64> {
        match &self.codes {
            Codes::Pool(pool) => Some(pool.free() as u64),
            _ => None,
        }
    }

    /// What is worth a look in the pool's file.
    pub fn pool_warnings(&self) -> Vec<String> {
        match &self.codes {
            Codes::Pool(pool) => pool.warnings().iter().map(|warning| warning.message.clone()).collect(),
            _ => Vec::new(),
        }
    }

    /// The estimated number of rows.
    pub fn size_hint(&self) -> usize {
        self.audience.size_hint()
    }

    /// Visits every row, in the order of the sources, and reports how much was read from each file.
    pub fn run(self, mut visit: impl FnMut(Item) -> ControlFlow<()> + Send) -> Result<ReadReport, Diagnostics> {
        self.walk(false, |step| match step {
            Step::Item(item) => visit(item),
            Step::AlreadyHandled => ControlFlow::Continue(()),
        })
    }

    /// Visits every row, and gives only the messages that are still to be sent. The others are not rendered: this is for
    /// a second pass, and the first pass has rendered them all.
    pub fn run_to_send(
        self,
        mut visit: impl FnMut(ToSend) -> ControlFlow<()> + Send,
    ) -> Result<ReadReport, Diagnostics> {
        self.walk(true, |step| match step {
            Step::Item(Item::Desired(desired)) => visit(ToSend::Message(desired)),
            Step::Item(_) | Step::AlreadyHandled => visit(ToSend::Nothing),
        })
    }

    fn walk(
        self,
        only_to_send: bool,
        mut visit: impl FnMut(Step) -> ControlFlow<()> + Send,
    ) -> Result<ReadReport, Diagnostics> {
        let Self { prepared, audience, snapshot, keys, mut codes, expiry, retry_rejected } = self;
        let mut ordinal = 0;
        let mut digester = Digester::new(prepared.campaign.gateway.sender);
        let mut sends = snapshot.sends.cursor();
        let scope = plan_scope(prepared);
        audience.rows(
            |row| prepared.composer.selects(row),
            |entry| {
                let recipient = match entry {
                    AudienceItem::Excluded(excluded) => return visit(Step::Item(Item::Blocked(excluded.into()))),
                    AudienceItem::Recipient(recipient) => recipient,
                };
                let key = keys.of(recipient.identity);
                let recorded = sends.get(&key);
                let status = SendStatus::of(recorded, retry_rejected, &snapshot.live);
                if only_to_send && !matches!(status, SendStatus::Send(_)) {
                    ordinal += 1;
                    return visit(Step::AlreadyHandled);
                }
                let Some(coupon) = codes.propose(recipient.identity, recorded) else {
                    return visit(Step::Item(Item::NoCodeLeft));
                };
                let content = match prepared.composer.compose(&recipient.row, coupon.expose()) {
                    Ok(content) => content,
                    Err(failure) => {
                        let blocked = Blocked::unrenderable(recipient.origin, failure);
                        return visit(Step::Item(Item::Blocked(blocked)));
                    }
                };
                codes.keep(&coupon, recorded);
                let expiry = if content.template.has_expiration { expiry } else { None };
                let message = Message {
                    template: content.template,
                    media: content.media,
                    params: content.params,
                    url_param: content.url_param,
                    coupon,
                    expiry,
                };
                let (digest, head) = digester.digests(&message);
                let status = match (status, recorded.and_then(|recorded| recorded.content)) {
                    (SendStatus::Sent, Some(content)) if content_prefix(&digest.0) != Some(content) => {
                        SendStatus::Drifted
                    }
                    (status, _) => status,
                };
                let entry = plan_entry(&scope, recipient.identity, recipient.address, digest);
                let desired = Desired {
                    origin: recipient.origin,
                    address: recipient.address,
                    row: recipient.row,
                    key,
                    message,
                    digest,
                    head,
                    status,
                    entry,
                    ordinal,
                    identity: recipient.identity,
                };
                ordinal += 1;
                visit(Step::Item(Item::Desired(Box::new(desired))))
            },
        )
    }
}

impl Codes {
    /// The code that a person would get: the one that is theirs already, else the next.
    fn propose(&mut self, person: Identity, recorded: Option<RecordedSend<'_>>) -> Option<CouponCode> {
        let bound = recorded.and_then(|recorded| CouponCode::recorded(recorded.coupon));
        match self {
            Codes::One(code) => Some(code.clone()),
            // Who has had a code gets no second one, even if the first could not be read any more.
            Codes::Pool(_) if recorded.is_some() => bound,
            Codes::Pool(pool) => pool.peek().and_then(|code| CouponCode::new(code).ok()),
            Codes::Generated(generator, taken) => bound.or_else(|| {
                (0..MAX_SALT).find_map(|salt| {
                    generator.candidate(person, salt).ok().filter(|code| taken.position(code.expose()).is_none())
                })
            }),
        }
    }

    /// Gives the proposed code away.
    fn keep(&mut self, code: &CouponCode, recorded: Option<RecordedSend<'_>>) {
        match self {
            Codes::One(_) => {}
            Codes::Pool(pool) => {
                if recorded.is_none() {
                    pool.take();
                }
            }
            Codes::Generated(_, taken) => drop(taken.insert(code.expose())),
        }
    }
}

/// What the entries of one campaign's plan stand under.
fn plan_scope(prepared: &Prepared) -> [u8; 32] {
    let mut canonical = Canonical::new(b"sendform plan scope v1");
    canonical.text(&prepared.record_name);
    canonical.number(u64::from(prepared.campaign.edition));
    canonical.finish()
}

/// One recipient and one message, in canonical form.
fn plan_entry(scope: &[u8; 32], person: Identity, address: E164, digest: ContentDigest) -> [u8; 32] {
    let mut canonical = Canonical::keyed(scope);
    canonical.number(person.digits());
    canonical.number(address.digits());
    canonical.bytes(&digest.0);
    canonical.finish()
}

impl SendStatus {
    /// The status of a send, by what is recorded of it.
    pub fn of(recorded: Option<RecordedSend<'_>>, retry_rejected: bool, live: &[i64]) -> Self {
        match recorded {
            None => SendStatus::Send(1),
            Some(recorded) => match recorded.state {
                SendState::NotSent => SendStatus::Send(recorded.attempt + 1),
                SendState::Accepted => SendStatus::Sent,
                SendState::Rejected if retry_rejected => SendStatus::Send(recorded.attempt + 1),
                SendState::Rejected => SendStatus::Rejected,
                SendState::Intent if live.contains(&recorded.run) => SendStatus::UnderWay,
                SendState::Intent | SendState::Unknown => SendStatus::Unknown,
            },
        }
    }

    /// The reason under which a send that is not repeated is counted, if it counts as blocked.
    pub fn blocked(self) -> Option<BlockReason> {
        matches!(self, SendStatus::Rejected).then_some(BlockReason::Rejected)
    }
}
