//! What every ledger does.

use std::sync::Arc;

use sendform::domain::coupon::CouponCode;
use sendform::domain::send::{EvidenceSource, Resolution};
use sendform::ledger::protocol::Finding;
use sendform::ledger::{
    Claim, Evidence, Head, LedgerError, LostSend, RecordedEnding, RunCounts, RunLedger, RunStart, SendState, query,
};

use super::stage::{
    Stage, accepted, both, claim, intent, key, not_sent, operator, rejected, send_key, settle, start, unknown,
    with_stage,
};

pub fn evidence(number: u8, attempt: Option<u32>, resolution: Resolution) -> Evidence {
    Evidence {
        key: send_key(number),
        attempt,
        resolution,
        message_id: None,
        source: EvidenceSource::Decision,
        actor: "asha".into(),
        reason: "seen in the console".into(),
    }
}

pub async fn finish(run: Box<dyn RunLedger>) -> Head {
    run.finish(RecordedEnding::Partial, RunCounts::default()).await.unwrap()
}

async fn state(stage: &Stage, start: &RunStart, number: u8) -> Option<(SendState, u32)> {
    stage.snapshot(start).await.sends.get(&send_key(number)).map(|send| (send.state, send.attempt))
}

/// The record is sound, whatever happened.
pub async fn sound(stage: &Stage) {
    let check = query::check(stage.reader().await.as_mut()).await.unwrap();
    assert_eq!(check.problems, Vec::<String>::new());
}

#[test]
fn a_send_is_claimed_once() {
    with_stage(|stage| async move {
        let plan = start("v1:a");
        let mut run = stage.begin(&plan).await;
        assert_eq!(run.commit(&claim(&[(1, 1), (2, 1)])).await.unwrap().claims, [Claim::Granted, Claim::Granted]);
        // Again, as a later attempt while the first is open, and as an attempt that skips one.
        assert_eq!(run.commit(&claim(&[(1, 1), (2, 2), (3, 2)])).await.unwrap().claims, [Claim::Held; 3]);
        run.commit(&settle(&[(1, 1, accepted()), (2, 1, unknown())])).await.unwrap();
        assert_eq!(run.commit(&claim(&[(1, 2), (2, 2)])).await.unwrap().claims, [Claim::Held; 2]);
        finish(run).await;
        let mut next = stage.begin(&plan).await;
        assert_eq!(next.commit(&claim(&[(1, 1), (2, 1)])).await.unwrap().claims, [Claim::Held; 2]);
        assert_eq!(next.commit(&claim(&[(1, 2), (2, 2)])).await.unwrap().claims, [Claim::Held; 2]);
        finish(next).await;
        sound(&stage).await;
    });
}

#[test]
fn what_was_not_sent_is_claimed_again_even_by_the_commit_that_says_so() {
    with_stage(|stage| async move {
        let plan = start("v1:a");
        let mut run = stage.begin(&plan).await;
        run.commit(&claim(&[(1, 1)])).await.unwrap();
        let again = both(&claim(&[(1, 2)]), &settle(&[(1, 1, not_sent())]));
        assert_eq!(run.commit(&again).await.unwrap().claims, [Claim::Granted]);
        assert_eq!(state(&stage, &plan, 1).await, Some((SendState::Intent, 2)));
        // An outcome of the attempt before says nothing of this one.
        run.commit(&settle(&[(1, 1, accepted())])).await.unwrap();
        assert_eq!(state(&stage, &plan, 1).await, Some((SendState::Intent, 2)));
        run.commit(&settle(&[(1, 2, accepted())])).await.unwrap();
        finish(run).await;
        assert_eq!(state(&stage, &plan, 1).await, Some((SendState::Accepted, 2)));
        sound(&stage).await;
    });
}

#[test]
fn an_acceptance_is_taken_back_by_its_own_run_alone() {
    with_stage(|stage| async move {
        let plan = start("v1:a");
        let mut first = stage.begin(&plan).await;
        first.commit(&claim(&[(1, 1), (2, 1), (3, 1)])).await.unwrap();
        first.commit(&settle(&[(1, 1, accepted()), (2, 1, accepted()), (3, 1, rejected())])).await.unwrap();
        // Nothing but doubt takes an acceptance back, and it does so twice as well as once.
        first.commit(&settle(&[(1, 1, rejected()), (2, 1, not_sent()), (3, 1, unknown())])).await.unwrap();
        assert_eq!(state(&stage, &plan, 2).await, Some((SendState::Accepted, 1)));
        assert_eq!(state(&stage, &plan, 3).await, Some((SendState::Rejected, 1)));
        for _ in 0..2 {
            first.commit(&settle(&[(1, 1, unknown())])).await.unwrap();
            assert_eq!(state(&stage, &plan, 1).await, Some((SendState::Unknown, 1)));
        }
        assert_eq!(first.commit(&claim(&[(1, 2)])).await.unwrap().claims, [Claim::Held]);
        finish(first).await;
        let mut second = stage.begin(&plan).await;
        second.commit(&settle(&[(2, 1, unknown())])).await.unwrap();
        assert_eq!(state(&stage, &plan, 2).await, Some((SendState::Accepted, 1)));
        finish(second).await;
        sound(&stage).await;
    });
}

#[test]
fn what_was_refused_is_claimed_again_only_if_asked_for() {
    with_stage(|stage| async move {
        let plan = start("v1:a");
        let mut run = stage.begin(&plan).await;
        run.commit(&claim(&[(1, 1)])).await.unwrap();
        run.commit(&settle(&[(1, 1, rejected())])).await.unwrap();
        assert_eq!(run.commit(&claim(&[(1, 2)])).await.unwrap().claims, [Claim::Held]);
        finish(run).await;
        let mut again = stage.begin(&RunStart { retry_rejected: true, ..plan.clone() }).await;
        assert_eq!(again.commit(&claim(&[(1, 2)])).await.unwrap().claims, [Claim::Granted]);
        again.commit(&settle(&[(1, 2, accepted())])).await.unwrap();
        finish(again).await;
        sound(&stage).await;
    });
}

#[test]
fn what_a_dead_run_left_open_is_unknown_and_never_claimed() {
    with_stage(|stage| async move {
        let plan = start("v1:a");
        let mut run = stage.begin(&plan).await;
        run.commit(&claim(&[(1, 1), (2, 1), (3, 1)])).await.unwrap();
        run.commit(&settle(&[(2, 1, accepted())])).await.unwrap();
        stage.kill(run).await;
        let mut next = stage.begin(&plan).await;
        let snapshot = stage.snapshot(&plan).await;
        let unknown = snapshot.sends.count(SendState::Unknown);
        assert_eq!((unknown, snapshot.sends.len()), (2, 3));
        assert_eq!(next.commit(&claim(&[(1, 1), (1, 2), (3, 1)][..1])).await.unwrap().claims, [Claim::Held]);
        assert_eq!(
            next.commit(&claim(&[(1, 2), (3, 2), (4, 1)])).await.unwrap().claims,
            [Claim::Held, Claim::Held, Claim::Granted]
        );
        next.commit(&settle(&[(4, 1, accepted())])).await.unwrap();
        finish(next).await;
        sound(&stage).await;
    });
}

#[test]
fn a_run_that_was_fenced_off_is_granted_nothing_and_is_still_heard() {
    with_stage(|stage| async move {
        let plan = start("v1:a");
        let mut old = stage.begin(&plan).await;
        old.commit(&claim(&[(1, 1), (2, 1), (3, 1)])).await.unwrap();
        stage.take_the_place_of(old.id()).await;
        let mut new = stage.begin(&plan).await;
        assert!(new.id() > old.id(), "epochs rise");
        assert!(matches!(old.commit(&claim(&[(9, 1)])).await, Err(LedgerError::Fenced(_))));
        let mixed = both(&claim(&[(8, 1)]), &settle(&[(3, 1, accepted())]));
        assert!(matches!(old.commit(&mixed).await, Err(LedgerError::Fenced(_))));
        assert_eq!(state(&stage, &plan, 9).await, None);
        // What it saw is worth more than that nobody knows.
        old.commit(&settle(&[(1, 1, accepted()), (2, 1, not_sent())])).await.unwrap();
        assert_eq!(state(&stage, &plan, 1).await, Some((SendState::Accepted, 1)));
        assert_eq!(state(&stage, &plan, 2).await, Some((SendState::NotSent, 1)));
        assert_eq!(new.commit(&claim(&[(9, 1)])).await.unwrap().claims, [Claim::Granted]);
        new.commit(&settle(&[(9, 1, accepted())])).await.unwrap();
        // It cannot seal anything either, and does not end the run of another.
        finish(old).await;
        assert_eq!(new.commit(&claim(&[(10, 1)])).await.unwrap().claims, [Claim::Granted]);
        new.commit(&settle(&[(10, 1, accepted())])).await.unwrap();
        finish(new).await;
        sound(&stage).await;
    });
}

#[test]
pub fn evidence_settles_doubt_and_overrules_nothing() {
    with_stage(|stage| async move {
        let plan = start("v1:a");
        let mut run = stage.begin(&plan).await;
        run.commit(&claim(&[(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)])).await.unwrap();
        run.commit(&settle(&[(1, 1, unknown()), (2, 1, unknown()), (3, 1, unknown()), (4, 1, accepted())]))
            .await
            .unwrap();
        let mut ledger = stage.reader().await;
        // The run is under way: the outcome of 5 may still come, that of 1 will not.
        let pieces = [
            evidence(5, None, Resolution::NotSent),
            evidence(1, Some(1), Resolution::Accepted),
            evidence(1, Some(1), Resolution::Accepted),
            evidence(1, None, Resolution::NotSent),
            evidence(2, Some(2), Resolution::NotSent),
            evidence(2, Some(1), Resolution::NotSent),
            // A receipt names the send, not the attempt, and brings the provider's id.
            Evidence {
                source: EvidenceSource::Receipt,
                actor: "provider".into(),
                message_id: Some("m-3".into()),
                ..evidence(3, None, Resolution::Rejected)
            },
            evidence(4, None, Resolution::NotSent),
            evidence(6, None, Resolution::Accepted),
        ];
        let findings = ledger.record_evidence(&pieces).await.unwrap();
        assert_eq!(
            findings,
            [
                Finding::UnderWay,
                Finding::Settled,
                Finding::Already,
                Finding::Contradicts(SendState::Accepted),
                Finding::OtherAttempt(1),
                Finding::Settled,
                Finding::Settled,
                Finding::Contradicts(SendState::Accepted),
                Finding::NotRecorded,
            ]
        );
        stage.kill(run).await;
        // Now nobody can tell any more, before another run says so.
        assert_eq!(
            stage.for_run().await.record_evidence(&[evidence(5, None, Resolution::NotSent)]).await.unwrap(),
            [Finding::Settled]
        );
        let mut next = stage.begin(&plan).await;
        let answers = next.commit(&claim(&[(1, 2), (2, 2), (3, 2), (4, 2), (5, 2)])).await.unwrap().claims;
        use Claim::{Granted, Held};
        assert_eq!(answers, [Held, Granted, Held, Held, Granted]);
        next.commit(&settle(&[(2, 2, accepted()), (5, 2, accepted())])).await.unwrap();
        finish(next).await;
        let receipt = query::history(ledger.as_mut(), send_key(3)).await.unwrap().pop().unwrap();
        assert_eq!((receipt.source(), receipt.message_id()), (Some("receipt"), Some("m-3")));
        let history = query::history(ledger.as_mut(), send_key(2)).await.unwrap();
        let told: Vec<_> = history.iter().map(|entry| (entry.state(), entry.attempt, entry.source())).collect();
        assert_eq!(
            told,
            [
                (SendState::Intent, 1, None),
                (SendState::Unknown, 1, None),
                (SendState::NotSent, 1, Some("decision")),
                (SendState::Intent, 2, None),
                (SendState::Accepted, 2, None),
            ]
        );
        assert_eq!(history[2].actor(), Some("asha"));
        assert_eq!(history[2].reason(), Some("seen in the console"));
        sound(&stage).await;
    });
}

#[test]
fn a_snapshot_holds_codes_and_the_first_plan_that_sent() {
    with_stage(|stage| async move {
        let pool = RunStart { unique_codes: true, ..start("v1:a") };
        let mut run = stage.begin(&pool).await;
        run.commit(&claim(&[(1, 1), (2, 1)])).await.unwrap();
        run.commit(&settle(&[(1, 1, accepted()), (2, 1, not_sent())])).await.unwrap();
        finish(run).await;
        let later = RunStart { planned_at: "2026-11-05T08:00:00Z".parse().unwrap(), ..pool.clone() };
        let mut run = stage.begin(&later).await;
        run.commit(&claim(&[(3, 1)])).await.unwrap();
        run.commit(&settle(&[(3, 1, accepted())])).await.unwrap();
        finish(run).await;
        let snapshot = stage.snapshot(&pool).await;
        assert_eq!(snapshot.planned_at, Some(pool.planned_at));
        assert_eq!(snapshot.sends.get(&send_key(2)).unwrap().coupon, "CODE2");
        assert!(snapshot.spent_codes.is_empty());
        let other = RunStart { campaign: "pongal".into(), name: "pongal".into(), ..pool.clone() };
        let mut spent = stage.snapshot(&other).await.spent_codes;
        spent.sort();
        assert_eq!(spent, ["CODE1".into(), "CODE2".into(), "CODE3".into()]);
        // Each knows what the other has given away, whichever began first, and after both went on.
        for (campaign, number) in [(&other, 4), (&pool, 6), (&other, 5)] {
            let mut run = stage.begin(campaign).await;
            run.commit(&claim(&[(number, 1)])).await.unwrap();
            run.commit(&settle(&[(number, 1, accepted())])).await.unwrap();
            finish(run).await;
        }
        let known = async |start: &RunStart| {
            let snapshot = stage.snapshot(start).await;
            let mut spent = snapshot.spent_codes;
            spent.sort();
            (snapshot.sends.len(), spent.join(" "))
        };
        assert_eq!(known(&other).await, (2, "CODE1 CODE2 CODE3 CODE6".to_owned()));
        assert_eq!(known(&pool).await, (4, "CODE4 CODE5".to_owned()));
        assert_eq!(known(&RunStart { unique_codes: false, ..other }).await, (2, String::new()));
        sound(&stage).await;
    });
}

#[test]
fn runs_are_told_with_their_figures_and_chained() {
    with_stage(|stage| async move {
        let plan = RunStart { name: "diwali-gold".into(), ..start("v1:abc") };
        let mut run = stage.begin(&plan).await;
        run.commit(&claim(&[(1, 1)])).await.unwrap();
        let live = stage.reader().await.runs().await.unwrap();
        assert!(live[0].live && live[0].ended_at.is_none());
        run.commit(&settle(&[(1, 1, accepted())])).await.unwrap();
        let counts = RunCounts { accepted: 1, ..RunCounts::default() };
        let before = run.head();
        let head = run.finish(RecordedEnding::Complete, counts).await.unwrap();
        assert_eq!(head.number, before.number + 1);
        let mut ledger = stage.reader().await;
        let runs = ledger.runs().await.unwrap();
        let run = &runs[0];
        assert_eq!(
            (run.campaign.as_str(), run.name.as_str(), run.plan_hash.as_str()),
            ("diwali", "diwali-gold", "v1:abc")
        );
        assert_eq!((run.counts, run.ending.as_ref(), run.live), (Some(counts), Some(&RecordedEnding::Complete), false));
        assert_eq!(run.version, env!("CARGO_PKG_VERSION"));
        assert_eq!(query::head(ledger.as_mut()).await.unwrap(), Some(head));
        for seen in [before, head] {
            assert_eq!(query::check_head(ledger.as_mut(), seen).await.unwrap(), None);
        }
        let ahead = Head { number: head.number + 1, ..head };
        assert!(query::check_head(ledger.as_mut(), ahead).await.unwrap().unwrap().contains("is behind"));
        let other = Head { hash: [0; 16], ..head };
        assert!(query::check_head(ledger.as_mut(), other).await.unwrap().unwrap().contains("another ledger"));
        for name in ["diwali", "diwali-gold"] {
            let status = query::status(ledger.as_mut(), Some(name)).await.unwrap();
            assert_eq!((status[0].accepted, status[0].campaign.as_str()), (1, "diwali-gold"), "{name}");
        }
        sound(&stage).await;
    });
}

#[test]
fn another_key_is_refused() {
    with_stage(|stage| async move {
        drop(stage.for_run().await);
        let wrong = sendform::ledger::LedgerKey::from_bytes([8; 32]);
        let refused = match &stage {
            Stage::Memory(store) => store.open(Some(&wrong)).err(),
            Stage::Sqlite(directory) => sendform::ledger::sqlite::SqliteLedger::open_existing(
                &directory.path().join("ledger.db"),
                &operator(),
                Some(&wrong),
            )
            .err(),
            Stage::Postgres(url) => {
                sendform::ledger::postgres::PostgresLedger::open_or_create(url, &operator(), &wrong).await.err()
            }
        };
        assert!(matches!(refused, Some(LedgerError::WrongKey { .. })), "{refused:?}");
        assert_ne!(wrong.fingerprint(), key().fingerprint());
    });
}

#[test]
fn an_acceptance_is_heard_however_late_and_whoever_said_otherwise() {
    with_stage(|stage| async move {
        let plan = start("v1:a");
        let mut old = stage.begin(&plan).await;
        old.commit(&claim(&[(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1)])).await.unwrap();
        stage.take_the_place_of(old.id()).await;
        // People decide while the answers are under way.
        let decisions = [
            (1, Resolution::NotSent),
            (2, Resolution::Rejected),
            (3, Resolution::Accepted),
            (4, Resolution::NotSent),
            (5, Resolution::Accepted),
        ]
        .map(|(send, resolution)| evidence(send, Some(1), resolution));
        let findings = stage.reader().await.record_evidence(&decisions).await.unwrap();
        assert_eq!(findings, [Finding::Settled; 5]);
        // One of them is sent again before the answer to the first attempt comes.
        let mut new = stage.begin(&plan).await;
        assert_eq!(new.commit(&claim(&[(4, 2)])).await.unwrap().claims, [Claim::Granted]);
        let answers: Vec<_> = [1, 2, 3, 4, 6].map(|send| (send, 1, accepted())).to_vec();
        let heard = old.commit(&settle(&[&answers[..], &[(5, 1, rejected())]].concat())).await.unwrap();
        assert_eq!((heard.not_taken, heard.forgotten.len()), (2, 0));
        for send in [1, 2, 3, 5, 6] {
            assert_eq!(state(&stage, &plan, send).await, Some((SendState::Accepted, 1)), "{send}");
        }
        assert_eq!(state(&stage, &plan, 4).await, Some((SendState::Intent, 2)));
        // What is offered again, as after a lost answer, is kept once.
        let again = old.commit(&settle(&[&answers[..], &[(5, 1, rejected())]].concat())).await.unwrap();
        assert_eq!(again, heard);
        let mut ledger = stage.reader().await;
        let found = ledger.contradictions().await.unwrap();
        let told: Vec<_> = found
            .iter()
            .map(|found| (found.key, found.run, found.attempt, found.said, found.stood, found.message_id.as_deref()))
            .collect();
        assert_eq!(
            told,
            [
                (send_key(4), old.id(), 1, SendState::Accepted, SendState::Intent, Some("m-1")),
                (send_key(5), old.id(), 1, SendState::Rejected, SendState::Accepted, None),
            ]
        );
        // The id that came after the decision is with it.
        let last = query::history(ledger.as_mut(), send_key(3)).await.unwrap().pop().unwrap();
        assert_eq!((last.state(), last.message_id(), last.source()), (SendState::Accepted, Some("m-1"), None));
        // Nothing more is sent to whom the first attempt reached, whatever becomes of the second.
        let ended = both(&claim(&[(4, 3), (1, 2), (2, 2)]), &settle(&[(4, 2, not_sent())]));
        assert_eq!(new.commit(&ended).await.unwrap().claims, [Claim::Held; 3]);
        assert_eq!(state(&stage, &plan, 4).await, Some((SendState::Accepted, 2)));
        finish(old).await;
        finish(new).await;
        let mut next = stage.begin(&RunStart { retry_rejected: true, ..plan.clone() }).await;
        assert_eq!(next.commit(&claim(&[(4, 3), (1, 2), (2, 2)])).await.unwrap().claims, [Claim::Held; 3]);
        finish(next).await;
        let status = query::status(ledger.as_mut(), None).await.unwrap();
        assert_eq!((status[0].accepted, status[0].contradictions.len()), (6, 2));
        sound(&stage).await;
    });
}

#[test]
fn a_run_takes_back_its_own_acceptance_and_nobody_elses() {
    with_stage(|stage| async move {
        let plan = start("v1:a");
        let mut run = stage.begin(&plan).await;
        run.commit(&claim(&[(1, 1), (2, 1), (3, 1)])).await.unwrap();
        run.commit(&settle(&[(1, 1, accepted()), (2, 1, unknown())])).await.unwrap();
        stage.reader().await.record_evidence(&[evidence(2, Some(1), Resolution::Accepted)]).await.unwrap();
        let both_words = settle(&[(1, 1, unknown()), (2, 1, unknown()), (3, 1, accepted()), (3, 1, unknown())]);
        let heard = run.commit(&both_words).await.unwrap();
        assert_eq!((heard.not_taken, heard.forgotten.len()), (0, 0));
        let stands = [(1, SendState::Unknown), (2, SendState::Accepted), (3, SendState::Unknown)];
        for (send, expected) in stands {
            assert_eq!(state(&stage, &plan, send).await, Some((expected, 1)), "{send}");
        }
        assert_eq!(run.commit(&claim(&[(1, 2), (3, 2)])).await.unwrap().claims, [Claim::Held; 2]);
        finish(run).await;
        sound(&stage).await;
    });
}

#[test]
fn outcomes_of_lost_intents_are_named_and_can_be_put_back() {
    with_stage(|stage| async move {
        let plan = RunStart { unique_codes: true, ..start("v1:a") };
        let mut run = stage.begin(&plan).await;
        let id = run.id();
        run.commit(&claim(&[(1, 1)])).await.unwrap();
        // Of the others the ledger has lost the intents.
        let endings = [(1, 1, accepted()), (2, 1, accepted()), (3, 1, unknown()), (4, 1, rejected())];
        let heard = run.commit(&settle(&endings)).await.unwrap();
        let named: Vec<_> = heard.forgotten.iter().map(|settlement| (settlement.key, settlement.attempt)).collect();
        assert_eq!(named, [(send_key(2), 1), (send_key(3), 1), (send_key(4), 1)]);
        // Another run takes up what seems to be pending.
        finish(run).await;
        let lost = |send: u8, outcome: SendState| LostSend {
            campaign: plan.campaign.clone(),
            edition: plan.edition,
            run: id,
            planned_at: plan.planned_at,
            intent: intent(send, 1),
            unique_code: true,
            outcome,
            message_id: (outcome == SendState::Accepted).then(|| "m-1".to_owned()),
            actor: "asha".into(),
            reason: "run 1 saw it".into(),
        };
        let mut next = stage.begin(&plan).await;
        next.commit(&claim(&[(4, 1)])).await.unwrap();
        next.commit(&settle(&[(4, 1, not_sent())])).await.unwrap();
        finish(next).await;
        let all = [
            lost(1, SendState::Accepted),
            lost(2, SendState::Accepted),
            lost(3, SendState::Unknown),
            lost(4, SendState::Accepted),
            // Nothing at all is recorded of its campaign.
            LostSend { campaign: "pongal".into(), ..lost(5, SendState::Accepted) },
        ];
        let mut ledger = stage.for_run().await;
        let findings = ledger.restore_sends(&all).await.unwrap();
        use Finding::{Already, Settled};
        assert_eq!(findings, [Already, Settled, Settled, Settled, Settled]);
        assert_eq!(ledger.restore_sends(&all[1..]).await.unwrap()[..2], [Already; 2]);
        drop(ledger);
        for (send, expected) in
            [(1, SendState::Accepted), (2, SendState::Accepted), (3, SendState::Unknown), (4, SendState::Accepted)]
        {
            assert_eq!(state(&stage, &plan, send).await, Some((expected, 1)), "{send}");
        }
        let mut last = stage.begin(&plan).await;
        let answers = last.commit(&claim(&[(1, 1), (2, 1), (3, 1), (4, 2)])).await.unwrap().claims;
        assert_eq!(answers, [Claim::Held; 4]);
        finish(last).await;
        let other = RunStart { campaign: "pongal".into(), name: "pongal".into(), ..plan.clone() };
        assert_eq!(state(&stage, &other, 5).await, Some((SendState::Accepted, 1)));
        assert!(stage.snapshot(&other).await.spent_codes.contains(&"CODE2".into()), "its code is free again");
        sound(&stage).await;
    });
}

#[test]
fn a_code_belongs_to_one_recipient_whatever_campaigns_and_editions() {
    with_stage(|stage| async move {
        let plan = RunStart { unique_codes: true, ..start("v1:a") };
        let with = |code: &str, sends: &[(u8, u32)]| {
            let mut batch = claim(sends);
            for intent in &mut Arc::make_mut(&mut batch).claim {
                intent.coupon = CouponCode::new(code).unwrap();
            }
            batch
        };
        let mut run = stage.begin(&plan).await;
        assert_eq!(run.commit(&with("A", &[(1, 1)])).await.unwrap().claims, [Claim::Granted]);
        assert_eq!(run.commit(&with("A", &[(2, 1)])).await.unwrap().claims, [Claim::CodeTaken]);
        // Who has it keeps it for a further attempt.
        let again = both(&with("A", &[(1, 2)]), &settle(&[(1, 1, not_sent())]));
        assert_eq!(run.commit(&again).await.unwrap().claims, [Claim::Granted]);
        run.commit(&settle(&[(1, 2, not_sent())])).await.unwrap();
        finish(run).await;
        for other in [
            RunStart { edition: 2, ..plan.clone() },
            RunStart { campaign: "pongal".into(), name: "pongal".into(), ..plan.clone() },
        ] {
            let mut run = stage.begin(&other).await;
            assert_eq!(run.commit(&with("A", &[(3, 1)])).await.unwrap().claims, [Claim::CodeTaken]);
            finish(run).await;
        }
        let mut run = stage.begin(&plan).await;
        assert_eq!(run.commit(&with("A", &[(1, 3)])).await.unwrap().claims, [Claim::Granted]);
        run.commit(&settle(&[(1, 3, accepted())])).await.unwrap();
        finish(run).await;
        // A campaign with one code for everybody asks nobody.
        let everybody = RunStart { campaign: "onam".into(), name: "onam".into(), unique_codes: false, ..plan };
        let mut run = stage.begin(&everybody).await;
        assert_eq!(run.commit(&with("A", &[(4, 1), (5, 1)])).await.unwrap().claims, [Claim::Granted; 2]);
        run.commit(&settle(&[(4, 1, accepted()), (5, 1, accepted())])).await.unwrap();
        finish(run).await;
        sound(&stage).await;
    });
}
