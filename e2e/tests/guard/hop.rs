//! Operator and agent come to the same verdict: what one has checked the other checks again, after
//! it has travelled.

use edict_core::guard::Policy;
use edict_core::wire::{self, Push};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::corpus::{HONEST, HOSTILE};
use crate::order::{layer, layers};
use crate::strategy::{cases, text};
use crate::subject::{Subject, policy};

/// What the agent gets of what the operator sends.
fn sent(push: &Push) -> Push {
    let bytes = serde_json::to_vec(push).expect("it serializes");
    let received: Push = wire::decode(&bytes).expect("it is read back");
    assert_eq!(wire::refuse(&received, "node-1"), None);
    received
}

fn push(policy: Policy, layers: Vec<edict_core::layer::Layer>) -> Push {
    Push::new("node-1".to_owned(), policy, layers, Vec::new())
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn both_sides_see_the_same(layers in layers(), allowed in vec(text(&["path"]), 0..3), protected in vec(text(&["path"]), 0..2)) {
        let operator = push(Policy { allowed, protected, ..policy() }, layers);
        let agent = sent(&operator);
        prop_assert_eq!(&operator, &agent);
        for (one, other) in operator.layers.iter().zip(&agent.layers) {
            prop_assert_eq!(one.check(&operator.policy), other.check(&agent.policy));
            prop_assert_eq!(one.render(), other.render());
        }
    }
}

/// The same for every known value that a configuration can have.
#[test]
fn known_values_have_one_verdict() {
    let blockless = [
        "proxy",
        "no-proxy",
        "no-proxy-list",
        "sysctl-key",
        "sysctl-value",
    ];
    let entries = HOSTILE.iter().chain(HONEST.iter());
    for entry in entries.filter(|entry| !blockless.contains(&entry.kind)) {
        let subject: Subject = crate::subject::subject(entry.kind, &entry.value);
        let operator = push(policy(), vec![layer(0, 0, 0, subject)]);
        let agent = sent(&operator);
        let verdicts = [&operator, &agent].map(|push| push.layers[0].check(&push.policy));
        assert_eq!(verdicts[0], verdicts[1], "{}", entry.line);
    }
}
