//! What every ledger tells a plan of other campaigns' sends, and of what its own held.

use std::collections::BTreeMap;

use std::sync::Arc;

use sendform::domain::phone::{E164, Identity};
use sendform::ledger::{
    Batch, Intent, RecordedEnding, RunCounts, RunStart, SendState, Settlement, Transition, content_prefix,
};
use sendform::plan::rename_guard::{Newcomers, find_with};

use super::stage::{accepted, both, claim, intent, key, not_sent, send_key, settle, start, unknown, with_stage};

#[test]
fn the_likenesses_and_moves_of_some_runs_are_told_and_no_others() {
    with_stage(|stage| async move {
        let mut ids = Vec::new();
        for (campaign, first) in [("one", 1), ("two", 11), ("three", 21)] {
            let plan = RunStart { campaign: campaign.into(), ..start("v2:a") };
            let mut run = stage.begin(&plan).await;
            ids.push(run.id());
            run.commit(&claim(&[(first, 1), (first + 1, 1)])).await.unwrap();
            // The second one is tried again.
            let again = both(&claim(&[(first + 1, 2)]), &settle(&[(first, 1, accepted()), (first + 1, 1, not_sent())]));
            run.commit(&again).await.unwrap();
            run.commit(&settle(&[(first + 1, 2, unknown())])).await.unwrap();
            run.finish(RecordedEnding::Partial, RunCounts::default()).await.unwrap();
        }
        let mut reader = stage.reader().await;
        let mut similarity_digests: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        reader
            .similarity_digests(&[ids[0], ids[2]], &mut |run, similarity_digest| {
                similarity_digests.entry(run).or_default().push(similarity_digest)
            })
            .await
            .unwrap();
        // Those of one commit may stand in any order.
        similarity_digests.values_mut().for_each(|found| found.sort_unstable());
        assert_eq!(similarity_digests, BTreeMap::from([(ids[0], vec![1, 2, 2]), (ids[2], vec![21, 22, 22])]));

        let mut moves = Vec::new();
        reader.transitions(&[ids[1]], &mut |step| moves.push(step)).await.unwrap();
        assert!(moves.iter().all(|step| step.run == ids[1]));
        let of = |number: u8| -> Vec<(SendState, Option<i64>)> {
            let own = moves.iter().filter(|step| step.key == send_key(number));
            own.map(|Transition { state, similarity_digest, .. }| (*state, *similarity_digest)).collect()
        };
        assert_eq!(of(11), [(SendState::Intent, Some(11)), (SendState::Accepted, None)]);
        let twice = [SendState::Intent, SendState::NotSent, SendState::Intent, SendState::Unknown];
        assert_eq!(of(12).iter().map(|(state, _)| *state).collect::<Vec<_>>(), twice);
        assert_eq!(moves.len(), 6);

        let mut nothing = 0;
        reader.similarity_digests(&[], &mut |_, _| nothing += 1).await.unwrap();
        reader.transitions(&[], &mut |_| nothing += 1).await.unwrap();
        assert_eq!(nothing, 0);
    });
}

#[test]
fn a_snapshot_knows_the_beginning_of_what_each_send_held() {
    with_stage(|stage| async move {
        let plan = start("v2:a");
        let mut run = stage.begin(&plan).await;
        run.commit(&claim(&[(1, 1), (2, 1)])).await.unwrap();
        run.commit(&settle(&[(1, 1, accepted()), (2, 1, not_sent())])).await.unwrap();
        run.finish(RecordedEnding::Partial, RunCounts::default()).await.unwrap();
        let snapshot = stage.snapshot(&plan).await;
        for number in [1, 2] {
            let held = snapshot.sends.get(&send_key(number)).unwrap().content;
            assert_eq!(held, content_prefix(&[number; 32]), "{number}");
        }
    });
}

fn person(number: u64) -> Identity {
    E164::parse_exact(&format!("+91987654{number:04}")).unwrap().identity()
}

#[test]
fn people_who_had_the_same_message_are_found_however_few_are_looked_up_at_once() {
    with_stage(|stage| async move {
        for (campaign, people) in [("one", 0..20_u64), ("two", 10..30)] {
            let plan = RunStart { campaign: campaign.into(), name: format!("{campaign}-today"), ..start("v2:a") };
            let mut run = stage.begin(&plan).await;
            let keys = key().send_keys(campaign, 1);
            let claim: Vec<Intent> = people
                .clone()
                .map(|number| Intent { key: keys.of(person(number)), similarity_digest: number as i64, ..intent(1, 1) })
                .collect();
            run.commit(&Arc::new(Batch { settle: Vec::new(), claim })).await.unwrap();
            // One of them provably got nothing.
            let settle = people
                .map(|number| Settlement {
                    key: keys.of(person(number)),
                    attempt: 1,
                    result: if number == 5 { not_sent() } else { accepted() },
                })
                .collect();
            run.commit(&Arc::new(Batch { settle, claim: Vec::new() })).await.unwrap();
            run.finish(RecordedEnding::Complete, RunCounts::default()).await.unwrap();
        }
        let mut reader = stage.reader().await;
        let runs = reader.runs().await.unwrap();
        for max_keys in [1, 7, 40, 1_000] {
            let mut newcomers = Newcomers::default();
            for number in 0..60 {
                // Person 29 would get another message than the one they had.
                let similarity_digest = if number == 29 { 1_000 } else { number as i64 };
                newcomers.add(person(number), similarity_digest, None);
            }
            let found = find_with(reader.as_mut(), &key(), &runs, "three", newcomers, 60, max_keys).await.unwrap();
            let found = found.unwrap();
            assert_eq!((found.people, found.of, found.need_permission), (28, 60, true), "{max_keys}");
            // Nineteen of each: 0 to 19 without 5, and 10 to 28.
            assert!(["one-today", "two-today"].contains(&found.campaign.as_str()), "{}", found.campaign);
            assert_eq!((found.edition, found.same), (1, 19));
        }
        // A campaign is no repeat of its own record.
        let mut newcomers = Newcomers::default();
        newcomers.add(person(25), 25, None);
        let none = find_with(reader.as_mut(), &key(), &runs, "two", newcomers, 1, 10).await.unwrap();
        assert_eq!(none, None);
    });
}
