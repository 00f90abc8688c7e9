//! An id that comes twice: answers reach the wrong requests.

use super::*;

/// The words that the record has of a person, who is the request of the same number.
fn words(ran: &Ran, person: u64) -> Vec<&'static str> {
    let record = ran.record.0.lock().unwrap();
    record.ended.get(&desired(person).key).cloned().unwrap_or_default()
}

/// Holds that the figures are those of the record, and that nothing is open.
fn figures_are_those_of_the_record(ran: &Ran) {
    let record = ran.record.0.lock().unwrap();
    assert!(record.open.is_empty());
    let count = |wanted: &[&str]| record.ended.values().flatten().filter(|word| wanted.contains(*word)).count() as u64;
    assert_eq!(ran.progress.accepted, count(&["accepted"]));
    assert_eq!(ran.progress.rejected, count(&["rejected"]));
    assert_eq!(ran.progress.unknown, count(&["unknown", "taken back"]));
    assert_eq!(ran.progress.attempts_not_sent, count(&["not sent"]));
}

fn quick() -> Delivery {
    Delivery { rate: Rate::parse("1000000/s").unwrap(), ..fast(10) }
}

#[tokio::test(start_paused = true)]
async fn an_id_of_a_durable_acceptance_that_comes_again_takes_it_back_and_ends_the_run() {
    let ran = run(600, quick(), |number| if number == 100 { Step::Repeat(40) } else { Step::Accept }).await;
    assert!(matches!(&ran.ending, RunEnding::MixedAnswers(problem) if problem.contains("m:40")), "{:?}", ran.ending);
    assert_eq!(words(&ran, 40), ["taken back"]);
    assert_eq!(words(&ran, 100), ["unknown"]);
    assert_eq!(words(&ran, 39), ["accepted"]);
    assert!(ran.requests() <= 120, "{}", ran.requests());
    assert!(ran.progress.unknown <= 21, "{}", ran.progress.unknown);
    figures_are_those_of_the_record(&ran);
}

#[tokio::test(start_paused = true)]
async fn whatever_comes_with_or_after_the_repeated_id_is_in_doubt() {
    for other in [Step::Accept, Step::Reject, Step::Throttle, Step::Lose, Step::Refuse] {
        for (at, repeated, of) in [(104, 105, 103), (105, 104, 106), (104, 105, 2)] {
            let ran = run(600, quick(), move |number| match number {
                number if number == at => other,
                number if number == repeated => Step::Repeat(of),
                _ => Step::Accept,
            })
            .await;
            let case = format!("{other:?} at {at}, {repeated} has the id of {of}");
            assert!(matches!(ran.ending, RunEnding::MixedAnswers(_)), "{case}: {:?}", ran.ending);
            assert_eq!(words(&ran, at as u64), ["unknown"], "{case}");
            assert!(matches!(words(&ran, of as u64)[..], ["unknown" | "taken back"]), "{case}");
            figures_are_those_of_the_record(&ran);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_never_left_this_program_is_not_sent_all_the_same() {
    let ran = run(600, quick(), |number| match number {
        104 => Step::Repeat(2),
        105..=108 => Step::Drop,
        _ => Step::Accept,
    })
    .await;
    assert!(matches!(ran.ending, RunEnding::MixedAnswers(_)));
    figures_are_those_of_the_record(&ran);
    let after = (105..=108).filter(|person| words(&ran, *person) == ["not sent"]).count();
    assert!(after > 0, "a failed connection proves that nothing was sent");
}

#[tokio::test(start_paused = true)]
async fn an_id_of_long_ago_is_none_of_the_last() {
    let ran = run(3_000, quick(), |number| if number == 2_999 { Step::Repeat(10) } else { Step::Accept }).await;
    assert_eq!((ran.ending.clone(), ran.progress.accepted), (RunEnding::Finished, 3_000));
}
