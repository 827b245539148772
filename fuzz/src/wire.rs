//! The messages between operator and agent: what is read can be sent again and is then the same,
//! and a push is judged as the agent judges it.

use std::fmt::Debug;

use edict_core::resolve::{Rendered, resolve};
use edict_core::wire::{Event, Hello, Push, Refusal, Report, decode, refuse};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Whether the bytes are a message.
pub fn holds(bytes: &[u8]) -> bool {
    let push = travels::<Push>(bytes);
    if let Some(push) = &push {
        is_judged(push);
    }
    let mut others = [
        travels::<Event>(bytes).is_some(),
        travels::<Hello>(bytes).is_some(),
        travels::<Report>(bytes).is_some(),
        travels::<Refusal>(bytes).is_some(),
    ]
    .into_iter();
    push.is_some() || others.any(|decodes| decodes)
}

fn travels<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let received: T = match decode(bytes) {
        Ok(message) => message,
        Err(refusal) => {
            assert_eq!(refusal.reason, "BadMessage");
            assert!(!refusal.message.is_empty());
            return None;
        }
    };
    let sent = serde_json::to_vec(&received).expect("a message is JSON");
    assert_eq!(decode::<T>(&sent).as_ref(), Ok(&received));
    Some(received)
}

fn is_judged(push: &Push) {
    let refusal = refuse(push, &push.node);
    let whole = Push::new(
        push.node.clone(),
        push.policy.clone(),
        push.layers.clone(),
        push.releases.clone(),
    );
    assert_eq!(refuse(&whole, &push.node), None);
    assert_eq!(refusal.is_none(), whole == *push, "{refusal:?}");

    let honest: Vec<_> = push
        .layers
        .iter()
        .filter(|layer| super::guard::is_let_through(&layer.config, &layer.contents, &push.policy))
        .map(|layer| Rendered {
            layer,
            resources: layer.resources(),
        })
        .collect();
    let mut turned = honest.clone();
    turned.reverse();
    let resolution = resolve(honest);
    // Two layers of one name and uid are told apart by nothing.
    let mut names: Vec<_> = push.layers.iter().map(|l| (&l.uid, &l.name)).collect();
    names.sort();
    if names.is_sorted_by(|a, b| a < b) {
        assert_eq!(resolve(turned), resolution);
    }
}
