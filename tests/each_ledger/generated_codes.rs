//! Generated codes are unique in a ledger, whatever campaigns and editions.

use super::project;
use crate::support::{Project, Sandbox, nothing_twice};

pub const GENERATED: (&str, &str) =
    ("coupons: { code: HELLO25 }", "coupons: { generate: { alphabet: \"AB\", length: 4 } }");

/// Five people have got a generated code; the sixth was added later.
pub fn five_of_six(sandbox: &Sandbox) -> Project {
    let project = project(sandbox);
    project.campaign(&[GENERATED]);
    project.people(&people("98", 5));
    project.apply(&[]).expect(0);
    project.people(&people("98", 6));
    project
}

pub fn people(prefix: &str, many: u32) -> String {
    let rows: String = (0..many).map(|row| format!("{prefix}000000{row:02},Person {row}\n")).collect();
    format!("mobile,first_name\n{rows}")
}

/// The campaign goes on, and so do others with codes of the same kind.
pub fn goes_on(project: &Project, sandbox: &Sandbox) {
    let counts = &project.plan_json()["counts"];
    assert_eq!((&counts["sent"], &counts["send"]), (&5.into(), &1.into()), "{counts}");
    project.apply(&[]).expect(0);
    project.run(&["ledger", "check"]).expect(0);
    // There are sixteen codes of four letters from two: without care one is given away twice.
    project.campaign(&[
        GENERATED,
        ("name: test-offer", "name: other-offer"),
        ("name: test_offer", "name: other_template"),
    ]);
    project.people(&people("97", 8));
    project.apply(&[]).expect(0);
    assert_eq!(nothing_twice(sandbox), 14);
}

#[test]
fn generated_codes_are_unique_in_a_ledger() {
    let sandbox = Sandbox::start(&[]);
    let project = project(&sandbox);
    // Sixteen codes there are; without care some would be given away twice.
    let generated = ("coupons: { code: HELLO25 }", "coupons: { generate: { alphabet: AB, length: 4 } }");
    let people = |prefix: &str, many: u32| {
        let rows: String = (0..many).map(|row| format!("{prefix}000000{row:02},Person {row}\n")).collect();
        project.people(&format!("mobile,first_name\n{rows}"));
    };
    people("98", 5);
    project.campaign(&[generated]);
    project.apply(&[]).expect(0);
    project.campaign(&[generated, ("name: test-offer", "name: test-offer\nedition: 2")]);
    project.apply(&["--allow-repeat"]).expect(0);
    people("97", 4);
    project.campaign(&[generated, ("name: test-offer", "name: other-offer")]);
    project.apply(&["--allow-repeat"]).expect(0);
    let codes = sandbox.accepted("coupon_code");
    let different: std::collections::HashSet<_> = codes.iter().collect();
    assert_eq!((codes.len(), different.len()), (14, 14), "{codes:?}");
}
