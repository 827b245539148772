//! Twice is as once: what has been set is not changed by being set again.

use edict_core::format::json;
use edict_core::resource::Resource;
use proptest::prelude::*;

use crate::render::{self, DAEMON};
use crate::round::{daemon, docker_subject};
use crate::strategy::{cases, subject};

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn what_is_set_stays_as_it_is(subject in docker_subject(), before in daemon()) {
        let once = render::real(&subject, &before);
        let text = String::from_utf8_lossy(&once[DAEMON]).into_owned();
        prop_assert_eq!(render::real(&subject, &text), once);
    }

    /// Also where somebody lays it out in another way meanwhile.
    #[test]
    fn what_says_so_already_stays_as_it_is(subject in docker_subject()) {
        let once = render::real(&subject, "{}");
        let said: serde_json::Value = serde_json::from_slice(&once[DAEMON])?;
        for text in [said.to_string(), format!(" {said:#}\r\n")] {
            let again = render::real(&subject, &text);
            prop_assert_eq!(String::from_utf8_lossy(&again[DAEMON]), text);
        }
    }

    #[test]
    fn rendering_twice_is_rendering_once(subject in subject()) {
        prop_assert_eq!(subject.config.render(&subject.contents), subject.config.render(&subject.contents));
    }

    /// What is taken away again leaves what was there before, other than in how it is laid out.
    #[test]
    fn what_is_unset_is_gone(subject in docker_subject(), before in daemon()) {
        let mut text = before.clone();
        for (_, resource) in subject.config.render(&subject.contents) {
            let Resource::Keys(keys) = resource else { continue };
            for (key, value) in &keys.values {
                let set = json::set(&text, key, value)?;
                let gone = json::unset(&set, key)?;
                prop_assert_eq!(json::get(&gone, key)?, None);
                prop_assert_eq!(json::unset(&gone, key)?, gone.clone());
                text = match json::get(&before, key)? {
                    Some(old) => json::set(&set, key, &old)?,
                    None => gone,
                };
            }
        }
        prop_assert_eq!(json::parse(&text)?, json::parse(&before)?);
    }
}
