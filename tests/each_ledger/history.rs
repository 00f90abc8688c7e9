//! Random histories, played on a ledger and on a model of the protocol.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use sendform::domain::send::Resolution;
use sendform::ledger::protocol::{self, Finding, LastAttempt, ReportContext, ReportEffect};
use sendform::ledger::{AttemptResult, Claim, Committed, RunStart, SendKey, SendState, Settlement};

use super::conformance::{evidence, finish, sound};
use super::stage::{
    Stage, accepted, both, claim, not_sent, rejected, runtime, scope, send_key, settle, start, unknown,
};
use crate::support::Kind;

/// One step of a history.
#[derive(Debug, Clone)]
enum Step {
    /// Settlements and claims in one commit: `(send, attempt)` and how it ended.
    Commit {
        settle: Vec<(u8, u32, u8)>,
        claim: Vec<(u8, u32)>,
    },
    Evidence(u8, Option<u32>, u8),
    /// The run ends, or dies, and another begins.
    Next {
        dies: bool,
        retry_rejected: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let send = || 1_u8..5;
    let attempt = || 1_u32..4;
    prop_oneof![
        6 => (
            proptest::collection::vec((send(), attempt(), 0_u8..4), 0..4),
            proptest::collection::btree_map(send(), attempt(), 0..4),
        ).prop_map(|(settle, claim)| Step::Commit { settle, claim: claim.into_iter().collect() }),
        2 => (send(), proptest::option::of(attempt()), 0_u8..3).prop_map(|(send, attempt, resolution)| Step::Evidence(send, attempt, resolution)),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(dies, retry_rejected)| Step::Next { dies, retry_rejected }),
    ]
}

fn ending(kind: u8) -> AttemptResult {
    [accepted(), rejected(), unknown(), not_sent()][usize::from(kind)].clone()
}

/// The protocol, and nothing else.
#[derive(Default)]
struct Model {
    sends: HashMap<u8, Sent>,
    run: i64,
    retry_rejected: bool,
}

/// One send of the model.
struct Sent {
    last: LastAttempt,
    /// Of which attempt its run itself said where it stands.
    own_word: Option<u32>,
    /// The run of each attempt, from the first on.
    claimed: Vec<i64>,
    /// Attempts whose id is recorded.
    ids: HashSet<u32>,
    /// An acceptance that the record could not follow.
    contradicted: bool,
}

impl Sent {
    /// Where a reader finds it.
    fn state(&self) -> SendState {
        match self.last.state {
            SendState::NotSent | SendState::Rejected if self.contradicted => SendState::Accepted,
            state => state,
        }
    }
}

impl Model {
    fn next(&mut self, run: i64, retry_rejected: bool) {
        for sent in self.sends.values_mut().filter(|sent| sent.last.state == SendState::Intent) {
            sent.last.state = SendState::Unknown;
            sent.own_word = None;
        }
        (self.run, self.retry_rejected) = (run, retry_rejected);
    }

    fn last(&self, send: u8) -> Option<LastAttempt> {
        self.sends.get(&send).map(|sent| sent.last)
    }

    fn hear(&mut self, send: u8, attempt: u32, kind: u8) -> ReportEffect {
        let to = ending(kind).state();
        let Some(sent) = self.sends.get_mut(&send) else { return ReportEffect::NotRecorded };
        let held = ReportContext {
            last: sent.last,
            claimed: sent.claimed.get(attempt as usize - 1) == Some(&self.run),
            own_word: sent.own_word == Some(attempt),
            has_id: sent.ids.contains(&attempt),
        };
        let hearing = protocol::evaluate_report(Some(held), attempt, self.run, to);
        match hearing {
            ReportEffect::Moves => {
                sent.last.state = to;
                sent.own_word = Some(attempt);
            }
            ReportEffect::AddsId => sent.own_word = Some(attempt),
            ReportEffect::Contradicts => sent.contradicted |= to == SendState::Accepted,
            _ => {}
        }
        if to == SendState::Accepted && matches!(hearing, ReportEffect::Moves | ReportEffect::AddsId) {
            sent.ids.insert(attempt);
        }
        hearing
    }

    /// What simply follows from open intents, then the claims, then everything else in order.
    fn commit(&mut self, settle: &[(u8, u32, u8)], claim: &[(u8, u32)]) -> Committed {
        let mut committed = Committed::default();
        let mut later = Vec::new();
        let mut moved = HashSet::new();
        for (send, attempt, kind) in settle {
            let before = self.last(*send).filter(|stand| stand.state == SendState::Intent);
            let plain = protocol::may_settle(before, *attempt, self.run, ending(*kind).state());
            if plain && moved.insert(*send) {
                self.hear(*send, *attempt, *kind);
            } else {
                later.push((*send, *attempt, *kind));
            }
        }
        for (send, attempt) in claim {
            let contradicted = self.sends.get(send).is_some_and(|sent| sent.contradicted);
            if !contradicted && protocol::may_claim(self.last(*send), *attempt, self.retry_rejected) {
                let stand = LastAttempt { state: SendState::Intent, attempt: *attempt, run: self.run };
                let sent = self.sends.entry(*send).or_insert_with(|| Sent {
                    last: stand,
                    own_word: None,
                    claimed: Vec::new(),
                    ids: HashSet::new(),
                    contradicted: false,
                });
                sent.last = stand;
                sent.own_word = Some(*attempt);
                sent.claimed.push(self.run);
                committed.claims.push(Claim::Granted);
            } else {
                committed.claims.push(Claim::Held);
            }
        }
        for (send, attempt, kind) in later {
            match self.hear(send, attempt, kind) {
                ReportEffect::NotRecorded => {
                    let settlement = Settlement { key: send_key(send), attempt, result: ending(kind) };
                    committed.forgotten.push(settlement);
                }
                hearing => committed.not_taken += u64::from(!hearing.taken()),
            }
        }
        committed
    }
}

/// Plays a history on a ledger and on the model, and compares every answer.
async fn play(stage: Stage, steps: &[Step]) {
    let plan = start("v1:a");
    let mut model = Model::default();
    let mut run = stage.begin(&plan).await;
    model.next(run.id(), false);
    for step in steps {
        match step {
            Step::Commit { settle: endings, claim: claims } => {
                // Of one send an engine claims an attempt only together with a plain outcome of the
                // one before.
                let claims: Vec<_> = claims
                    .iter()
                    .filter(|(claimed, _)| {
                        let said = endings.iter().filter(|(send, ..)| send == claimed).count();
                        let open = model.last(*claimed).is_none_or(|stand| stand.state == SendState::Intent);
                        said == 0 || said == 1 && open
                    })
                    .copied()
                    .collect();
                let claims = &claims[..];
                let expected = model.commit(endings, claims);
                let tuples: Vec<_> =
                    endings.iter().map(|(send, attempt, kind)| (*send, *attempt, ending(*kind))).collect();
                let batch = both(&claim(claims), &settle(&tuples));
                assert_eq!(run.commit(&batch).await.unwrap(), expected, "{step:?}");
            }
            Step::Evidence(send, attempt, kind) => {
                let resolution = [Resolution::Accepted, Resolution::Rejected, Resolution::NotSent][usize::from(*kind)];
                let before = model.last(*send);
                let expected = protocol::evaluate(before, true, *attempt, resolution);
                // SQLite's run holds what it knows in memory: a decision counts from the next run on.
                if expected == Finding::Settled
                    && resolution != Resolution::Accepted
                    && matches!(stage, Stage::Sqlite(_))
                {
                    continue;
                }
                let mut ledger = stage.reader().await;
                assert_eq!(
                    ledger.record_evidence(&[evidence(*send, *attempt, resolution)]).await.unwrap(),
                    [expected],
                    "{step:?}"
                );
                if let (Finding::Settled, Some(sent)) = (expected, model.sends.get_mut(send)) {
                    sent.last.state = resolution.state();
                    sent.own_word = None;
                }
            }
            Step::Next { dies, retry_rejected } => {
                if *dies {
                    stage.kill(run).await;
                } else {
                    finish(run).await;
                }
                run = stage.begin(&RunStart { retry_rejected: *retry_rejected, ..plan.clone() }).await;
                model.next(run.id(), *retry_rejected);
            }
        }
    }
    let snapshot = stage.reader().await.snapshot(&scope(&plan)).await.unwrap();
    assert_eq!(snapshot.sends.len(), model.sends.len());
    for (send, sent) in &model.sends {
        let recorded = snapshot.sends.get(&send_key(*send)).unwrap();
        assert_eq!((recorded.state, recorded.attempt), (sent.state(), sent.last.attempt), "send {send}");
    }
    let contradictions = stage.reader().await.contradictions().await.unwrap();
    let accepted: HashSet<SendKey> =
        contradictions.iter().filter(|found| found.said == SendState::Accepted).map(|found| found.key).collect();
    let expected: HashSet<SendKey> =
        model.sends.iter().filter(|(_, sent)| sent.contradicted).map(|(send, _)| send_key(*send)).collect();
    assert_eq!(accepted, expected);
    finish(run).await;
    sound(&stage).await;
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 40,
        max_shrink_iters: 200,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/each_ledger/history.regressions"))),
        ..ProptestConfig::default()
    })]
    #[test]
    fn any_history_follows_the_protocol(steps in proptest::collection::vec(step(), 1..30)) {
        if crate::LEDGER == Kind::Sqlite {
            runtime().block_on(play(Stage::memory(), &steps));
        }
        runtime().block_on(play(Stage::new(), &steps));
    }
}
