//! The meaning of Kaleyra's responses.
//!
//! The first row that matches decides. A response *may contain an id* if a field in which a success could carry one is
//! neither null nor empty: `data` in any shape, `id`, `message_id` or `messages` at the top level.
//!
//! | response | meaning |
//! |---|---|
//! | an account code (`RBC201`, `RBC001`, `E110`, `WAV2101`), 2xx or 4xx, no id | provably not sent, stop the run |
//! | an account code beside an id, or with another status | unknown, stop the run |
//! | 1xx, 3xx, 5xx, 408, 409, 499 | unknown |
//! | 429, 401, 402, 403, 404, 405, 411, 413, 415 that may contain an id | unknown |
//! | any other 429 | provably not sent, slow down |
//! | any other 401, 402, 403, 404, 405, 411, 413, 415 | provably not sent, stop the run |
//! | any other body that is not readable JSON, or gives a key twice | unknown |
//! | any other 4xx that may contain an id | unknown |
//! | 2xx that may contain an id, and: an `error`, a `code` other than success, an `error` of the entry, a `totalCount` of 0 or above the number of recipients | unknown |
//! | 2xx with ids in `data` and none of that | accepted, if it is certain whose id it is |
//! | 2xx for one recipient with an `id` at the top, no `data`, no `message` and none of that | accepted |
//! | 2xx or 4xx, no id, a `code` that refuses or an `error` with a text | rejected |
//! | 400 or 422, no id, only a `message` | rejected |
//! | anything else | unknown |
//!
//! * A `code` that repeats the 2xx status, `WA200` and `WS201` are successes. `WA500` and other codes
//!   of a failing server prove nothing, nor does a `code` or an `error` such as `OK` or `none`.
//! * The vendor's page prints its error body with `\[` for `[`. Such a body is read as a refusal
//!   or as nothing.
//! * The owner of an id: with as many entries as recipients, the index in the ids decides if the indices are 0…n−1,
//!   each once; otherwise the order decides. With fewer entries, an id has an owner only if the masked recipient of each
//!   entry matches exactly one number of the request. A mask that contradicts the number makes that recipient unknown,
//!   see [`mask`].
//! * If a 2xx refuses without an id, and its `error` contains the full numbers of some of several recipients, those are
//!   rejected and the others are unknown.
//!
//! Sources: the send-LTO page (bodies, `RBC201`), `docs/whatsapp-error-codes` (statuses, 429),
//! `docs/whatsapp-api-v2-error-codes-for-send-message` (`RBC001`, `E110`, `WAV2101`, `WA500`). Whether a
//! refusal of credentials comes with status 200 is not documented, so the code decides. An `id` at
//! the top alone: `nyaruka/courier`, `handlers/kaleyra/testdata/outgoing.json`.

mod answer;
mod body;
mod mask;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::time::Duration;

use serde_json::value::RawValue;

use self::answer::{Answer, Denial, Object, Total, denial, fails_otherwise, read as read_value};
use self::mask::Mask;
use crate::domain::phone::E164;
use crate::domain::send::{NotSent, Outcome};
use crate::gateway::Reply;
use crate::gateway::kaleyra::codes::Code;
use crate::gateway::redact::Private;

/// Statuses that refuse every request, whoever the recipient is.
const REFUSE_EVERY_REQUEST: [u16; 8] = [401, 402, 403, 404, 405, 411, 413, 415];

/// Reads the response to a request for `private.numbers`, in their order. The reply contains no private data.
pub fn read(status: u16, retry_after: Option<Duration>, body: &[u8], private: &Private<'_>) -> Reply {
    let reader = Reader { status, retry_after, private };
    if let Ok(fields) = serde_json::from_slice::<Object<'_>>(body) {
        return reader.read(&Answer(fields), true);
    }
    if let Some(fixed) = body::as_printed(body)
        && let Ok(fields) = serde_json::from_slice::<Object<'_>>(&fixed)
    {
        return reader.read(&Answer(fields), false);
    }
    reader.unreadable(body)
}

/// Reads one response.
struct Reader<'a> {
    status: u16,
    retry_after: Option<Duration>,
    private: &'a Private<'a>,
}

impl Reader<'_> {
    /// `exact` says that the body is valid JSON without corrections.
    fn read(&self, answer: &Answer<'_>, exact: bool) -> Reply {
        let code = answer.code(self.status);
        if let Code::Account(_) = code {
            return self.account(answer, &code);
        }
        if self.is_doubtful() {
            return self.unknown(format!("the provider responded with status {}", self.status));
        }
        let may_hold_id = answer.may_hold_id();
        if self.status == 429 || REFUSE_EVERY_REQUEST.contains(&self.status) {
            return if may_hold_id { self.id_and_refusal() } else { self.request_refused(&self.reason(&code, answer)) };
        }
        let success = self.is_success();
        match (may_hold_id, success && exact) {
            (true, true) => match self.accepted(answer, &code) {
                Ok(outcomes) => Reply::Settled(outcomes),
                Err(problem) => self.unknown(problem),
            },
            (true, false) if success => self.unknown(format!("the response (status {}) cannot be read", self.status)),
            (true, false) => self.id_and_refusal(),
            (false, _) => self.refusal(answer, &code),
        }
    }

    /// Decides about a body that is not a JSON object.
    fn unreadable(&self, body: &[u8]) -> Reply {
        if self.is_doubtful() {
            return self.unknown(format!("the provider responded with status {}", self.status));
        }
        if (self.status == 429 || REFUSE_EVERY_REQUEST.contains(&self.status)) && !body::may_hold_id(body) {
            return self.request_refused("");
        }
        self.unknown(format!("the response (status {}) cannot be read", self.status))
    }

    /// The account is refused: the run stops, whatever else the response contains.
    fn account(&self, answer: &Answer<'_>, code: &Code) -> Reply {
        let reason = self.reason(code, answer);
        if !self.is_doubtful() && !answer.may_hold_id() && answer.total(self.recipients()) != Total::TooMany {
            return Reply::NotSent(NotSent::Account { reason });
        }
        let doubt =
            format!("the response (status {}) refuses the account and may contain an id: {reason}", self.status);
        Reply::Refused { outcomes: vec![Outcome::Unknown { reason: doubt }; self.recipients()], reason }
    }

    /// Not sent, and the next request would be refused as well.
    fn request_refused(&self, words: &str) -> Reply {
        Reply::NotSent(match (self.status, words) {
            (429, "") => {
                NotSent::Throttled { reason: "too many requests (429)".to_owned(), retry_after: self.retry_after }
            }
            (429, words) => NotSent::Throttled { reason: words.to_owned(), retry_after: self.retry_after },
            (status, "") => NotSent::Account { reason: format!("status {status}") },
            (status, words) => NotSent::Account { reason: format!("status {status}: {words}") },
        })
    }

    /// There is no id: rejected, if the response says so.
    fn refusal(&self, answer: &Answer<'_>, code: &Code) -> Reply {
        let denial = answer.denial();
        let refuses = match code {
            Code::Refusal(_) => denial != Denial::Unreadable,
            Code::Absent => denial == Denial::Error,
            Code::Success | Code::Unclear(_) | Code::Account(_) => false,
        };
        let message_alone = matches!(self.status, 400 | 422)
            && *code == Code::Absent
            && denial == Denial::None
            && answer.message().is_some();
        if !(refuses || message_alone) || answer.total(self.recipients()) == Total::TooMany {
            let words = self.reason(code, answer);
            let words = if words.is_empty() { words } else { format!(": {words}") };
            return self.unknown(format!(
                "the response (status {}) contains neither an id nor a clear refusal{words}",
                self.status
            ));
        }
        let rejected = Outcome::Rejected { reason: self.reason(code, answer) };
        let named = if self.is_success() && self.recipients() > 1 {
            answer.named_in_error(self.private.numbers)
        } else {
            Vec::new()
        };
        if !named.contains(&true) {
            return Reply::Settled(vec![rejected; self.recipients()]);
        }
        let other =
            Outcome::Unknown { reason: "the response refuses other recipients and does not name this one".to_owned() };
        Reply::Settled(named.into_iter().map(|named| if named { rejected.clone() } else { other.clone() }).collect())
    }

    /// An outcome for each recipient, or the reason why none is accepted.
    fn accepted(&self, answer: &Answer<'_>, code: &Code) -> Result<Vec<Outcome>, String> {
        if answer.denial() != Denial::None || answer.fails_otherwise() || !matches!(code, Code::Absent | Code::Success)
        {
            let words = self.reason(code, answer);
            let words = if words.is_empty() { words } else { format!(": {words}") };
            return Err(format!("the response may contain an id, and contains an error{words}"));
        }
        match answer.total(self.recipients()) {
            Total::Fits => {}
            Total::None => return Err("the response may contain an id, and its `totalCount` is 0".to_owned()),
            Total::TooMany => {
                return Err("the `totalCount` of the response exceeds the number of recipients".to_owned());
            }
        }
        let Some(data) = answer.0.get("data") else { return self.accepted_by_top_id(answer) };
        let entries: Vec<Object<'_>> =
            read_value(data).ok_or_else(|| "the `data` of the response is not a list of messages".to_owned())?;
        let entries: Vec<Entry<'_>> = entries.iter().map(|fields| Entry::of(fields, self.status)).collect();
        let recipients = self.recipients();
        let owners = match entries.len() {
            0 => return Err("the response contains an id and no message".to_owned()),
            1 if recipients == 1 => vec![0],
            many if many > recipients => {
                return Err("the response contains more messages than the request has recipients".to_owned());
            }
            many if many == recipients && (entries.iter().all(|entry| entry.id.is_some()) || in_order(&entries)) => {
                by_index(&entries).unwrap_or_else(|| (0..many).collect())
            }
            _ => self.by_mask(&entries)?,
        };
        let mut outcomes =
            vec![Outcome::Unknown { reason: "the response contains no id for this recipient".to_owned() }; recipients];
        for (entry, owner) in entries.iter().zip(owners) {
            let twice = |id: &str| entries.iter().filter(|other| other.id.as_deref() == Some(id)).count() > 1;
            let unknown = |reason: &str| Outcome::Unknown { reason: reason.to_owned() };
            outcomes[owner] = match &entry.id {
                None => continue,
                Some(_) if entry.fails => unknown("the response contains an id and an error for this recipient"),
                Some(_) if self.is_anothers(entry.recipient.as_deref(), owner) => {
                    unknown("the response names another recipient")
                }
                Some(id) if recipients > 1 && twice(id) => {
                    unknown("the response contains the same id for several recipients")
                }
                Some(id) => Outcome::Accepted { message_id: self.private.id(id.to_string()) },
            };
        }
        Ok(outcomes)
    }

    /// `200 {"id":"58f86fab-…:0"}`, as at least one deployed client reads it.
    fn accepted_by_top_id(&self, answer: &Answer<'_>) -> Result<Vec<Outcome>, String> {
        let [number] = self.private.numbers else {
            return Err("the response does not contain an id for each recipient".to_owned());
        };
        let others = answer.0.iter().any(|(key, value)| key != "id" && answer::holds_an_id(key, value));
        let id = answer.0.get("id").and_then(id_of);
        match id {
            Some(id) if !others && !answer.has_message() => {
                let recipient: Option<Cow<'_, str>> = answer.0.get("recipient").and_then(text_of);
                if recipient.is_some_and(|mask| mask::compare(&mask, *number) == Mask::Contradicts) {
                    return Err("the response names another recipient".to_owned());
                }
                Ok(vec![Outcome::Accepted { message_id: self.private.id(id.into_owned()) }])
            }
            _ => Err("the response has no id where a success has it".to_owned()),
        }
    }

    /// The recipient of each entry by its mask alone: each must match exactly one, and each a different one.
    fn by_mask(&self, entries: &[Entry<'_>]) -> Result<Vec<usize>, String> {
        let mut owners = Vec::with_capacity(entries.len());
        for entry in entries {
            let mask = entry.recipient.as_deref().unwrap_or_default();
            let fits = |number: &E164| mask::compare(mask, *number) == Mask::Fits;
            let mut fitting = (0..self.recipients()).filter(|at| fits(&self.private.numbers[*at]));
            match (fitting.next(), fitting.next()) {
                (Some(owner), None) if !owners.contains(&owner) => owners.push(owner),
                _ => return Err("the response omits recipients, and it is uncertain which".to_owned()),
            }
        }
        Ok(owners)
    }

    fn is_anothers(&self, mask: Option<&str>, owner: usize) -> bool {
        mask.is_some_and(|mask| mask::compare(mask, self.private.numbers[owner]) == Mask::Contradicts)
    }

    fn recipients(&self) -> usize {
        self.private.numbers.len()
    }

    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether the status leaves the outcome open, whatever the body says. A conflict may be with the same message;
    /// 408 and 499 mean that one side did not wait.
    fn is_doubtful(&self) -> bool {
        !self.is_success() && !(400..500).contains(&self.status) || matches!(self.status, 408 | 409 | 499)
    }

    fn unknown(&self, reason: String) -> Reply {
        Reply::Settled(vec![Outcome::Unknown { reason }; self.recipients()])
    }

    fn id_and_refusal(&self) -> Reply {
        self.unknown(format!("the provider refuses (status {}), but the response may contain an id", self.status))
    }

    /// The code and the provider's explanation, without private data.
    fn reason(&self, code: &Code, answer: &Answer<'_>) -> String {
        let words = answer.words();
        let text = match code {
            Code::Account(code) | Code::Refusal(code) | Code::Unclear(code) if words.is_empty() => code.clone(),
            Code::Account(code) | Code::Refusal(code) | Code::Unclear(code) if !code.is_empty() => {
                format!("{code}: {words}")
            }
            _ => words,
        };
        self.private.text(&text)
    }
}

/// An entry of `data`.
struct Entry<'a> {
    id: Option<Cow<'a, str>>,
    recipient: Option<Cow<'a, str>>,
    /// Whether it reports a failure.
    fails: bool,
}

impl<'a> Entry<'a> {
    fn of(fields: &Object<'a>, status: u16) -> Self {
        let error = fields.get("error").is_some_and(|error| denial(error) != Denial::None)
            || !matches!(answer::code(fields, status), Code::Absent | Code::Success);
        Self {
            id: fields.get("message_id").and_then(id_of),
            recipient: fields.get("recipient").and_then(text_of),
            fails: error || fails_otherwise(fields),
        }
    }

    /// The index after the colon of its id.
    fn index(&self) -> Option<usize> {
        self.id.as_deref()?.rsplit_once(':')?.1.parse().ok()
    }
}

/// A text, without a copy unless it contains escapes.
fn text_of(value: &RawValue) -> Option<Cow<'_, str>> {
    let inner = value.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { read_value::<String>(value).map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// A text that can be an id: it has a visible character.
fn id_of(value: &RawValue) -> Option<Cow<'_, str>> {
    text_of(value).filter(|id| !crate::util::human::one_line(id).trim().is_empty())
}

/// The recipient of each entry by the indices of the ids, if these are 0…n−1, each once.
fn by_index(entries: &[Entry<'_>]) -> Option<Vec<usize>> {
    let owners: Vec<usize> = entries.iter().map(Entry::index).collect::<Option<_>>()?;
    let mut seen = vec![false; entries.len()];
    owners.iter().all(|owner| seen.get_mut(*owner).is_some_and(|seen| !std::mem::replace(seen, true))).then_some(owners)
}

/// Whether no id contradicts the order of the entries.
fn in_order(entries: &[Entry<'_>]) -> bool {
    entries.iter().enumerate().all(|(at, entry)| entry.index().is_none_or(|index| index == at))
}
