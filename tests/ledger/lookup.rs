//! What every ledger tells a plan of other campaigns' sends, and of what its own held.

use std::collections::BTreeMap;

use sendform::ledger::{Move, RunCounts, State, content_prefix};

use super::stage::{accepted, both, claim, not_sent, on_both, send_key, settle, start, unknown};

#[test]
fn the_likenesses_and_moves_of_some_runs_are_told_and_no_others() {
    on_both(|stage| async move {
        let mut ids = Vec::new();
        for (campaign, first) in [("one", 1), ("two", 11), ("three", 21)] {
            let plan = sendform::ledger::RunStart { campaign: campaign.into(), ..start("v2:a") };
            let mut run = stage.begin(&plan).await;
            ids.push(run.id());
            run.commit(&claim(&[(first, 1), (first + 1, 1)])).await.unwrap();
            // The second one is tried again.
            let again = both(&claim(&[(first + 1, 2)]), &settle(&[(first, 1, accepted()), (first + 1, 1, not_sent())]));
            run.commit(&again).await.unwrap();
            run.commit(&settle(&[(first + 1, 2, unknown())])).await.unwrap();
            run.finish("partial", RunCounts::default()).await.unwrap();
        }
        let mut reader = stage.reader().await;
        let mut likenesses: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        reader
            .likenesses(&[ids[0], ids[2]], &mut |run, likeness| likenesses.entry(run).or_default().push(likeness))
            .await
            .unwrap();
        // Those of one commit may stand in any order.
        likenesses.values_mut().for_each(|found| found.sort_unstable());
        assert_eq!(likenesses, BTreeMap::from([(ids[0], vec![1, 2, 2]), (ids[2], vec![21, 22, 22])]));

        let mut moves = Vec::new();
        reader.moves(&[ids[1]], &mut |step| moves.push(step)).await.unwrap();
        assert!(moves.iter().all(|step| step.run == ids[1]));
        let of = |number: u8| -> Vec<(State, Option<i64>)> {
            let own = moves.iter().filter(|step| step.key == send_key(number));
            own.map(|Move { state, likeness, .. }| (*state, *likeness)).collect()
        };
        assert_eq!(of(11), [(State::Intent, Some(11)), (State::Accepted, None)]);
        let twice = [State::Intent, State::NotSent, State::Intent, State::Unknown];
        assert_eq!(of(12).iter().map(|(state, _)| *state).collect::<Vec<_>>(), twice);
        assert_eq!(moves.len(), 6);

        let mut nothing = 0;
        reader.likenesses(&[], &mut |_, _| nothing += 1).await.unwrap();
        reader.moves(&[], &mut |_| nothing += 1).await.unwrap();
        assert_eq!(nothing, 0);
    });
}

#[test]
fn a_snapshot_knows_the_beginning_of_what_each_send_held() {
    on_both(|stage| async move {
        let plan = start("v2:a");
        let mut run = stage.begin(&plan).await;
        run.commit(&claim(&[(1, 1), (2, 1)])).await.unwrap();
        run.commit(&settle(&[(1, 1, accepted()), (2, 1, not_sent())])).await.unwrap();
        run.finish("partial", RunCounts::default()).await.unwrap();
        let snapshot = stage.snapshot(&plan).await;
        for number in [1, 2] {
            let held = snapshot.sends.get(&send_key(number)).unwrap().content;
            assert_eq!(held, content_prefix(&[number; 32]), "{number}");
        }
    });
}
