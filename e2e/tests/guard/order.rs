//! Which layer owns what does not depend on the order in which layers are given.

use edict_core::layer::{self, DeletionPolicy, Layer, Restarts};
use edict_core::resolve::{Rendered, Resolution, resolve};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::strategy::{cases, subject};
use crate::subject::Subject;

/// A layer of which only precedence, uid and configuration count here.
pub fn layer(number: usize, priority: i32, age: i64, subject: Subject) -> Layer {
    Layer {
        uid: format!("uid-{number}"),
        // Two have one name: the uid has to tell them apart.
        name: format!("name-{}", number / 2),
        priority,
        created: jiff::Timestamp::from_second(age).expect("a small number"),
        digest: layer::digest(&subject.config, &subject.contents),
        deletion_policy: DeletionPolicy::default(),
        restarts: Restarts::Allowed,
        drift: edict_core::layer::Drift::Correct,
        retry: None,
        facts: None,
        config: subject.config,
        contents: subject.contents,
    }
}

/// Layers of every kind, some of which want the same.
pub fn layers() -> impl Strategy<Value = Vec<Layer>> {
    let known = vec(subject(), 1..4);
    known.prop_flat_map(|known| {
        let one = (0..2, 0..2_i64, prop::sample::select(known));
        vec(one, 0..5).prop_map(|given| {
            let layers = given.into_iter().enumerate();
            layers
                .map(|(number, (priority, age, subject))| layer(number, priority, age, subject))
                .collect()
        })
    })
}

fn resolved(layers: &[Layer]) -> Resolution {
    let rendered = layers.iter().map(|layer| Rendered {
        layer,
        resources: layer.resources(),
    });
    resolve(rendered.collect())
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn the_order_of_layers_does_not_matter((given, shuffled) in layers().prop_flat_map(|layers| (Just(layers.clone()), Just(layers).prop_shuffle()))) {
        let resolution = resolved(&given);
        prop_assert_eq!(&resolution, &resolved(&shuffled));
        // Whatever loses, loses to what comes before it, or to another file of its own.
        for conflict in &resolution.conflicts {
            let winner = given.iter().find(|layer| layer.uid == conflict.winner);
            let loser = given.iter().find(|layer| layer.uid == conflict.loser);
            let both = winner.zip(loser).expect("both are among the layers");
            prop_assert!(both.0.precedence() <= both.1.precedence(), "{:?}", conflict);
        }
    }
}
