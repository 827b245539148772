use super::*;

/// Everything that is deleted until there is something to wait for or nothing left, and that.
fn until(mut left: Left) -> (Vec<Object>, Step) {
    let mut deleted = Vec::new();
    loop {
        match next(&left) {
            Step::Delete(object) => {
                deleted.push(object);
                left.objects.retain(|(other, _)| *other != object);
            }
            end => return (deleted, end),
        }
    }
}

fn all() -> Left {
    Left {
        objects: Object::ALL.map(|object| (object, false)).to_vec(),
        agents: vec!["a".into(), "b".into()],
        ..Left::default()
    }
}

#[test]
fn everything_goes_in_reverse_order() {
    let (deleted, end) = until(Left {
        agents: vec![],
        ..all()
    });
    let mut reverse = Object::ALL;
    reverse.reverse();
    assert_eq!(deleted, reverse);
    assert_eq!(end, Step::Free);
    assert_eq!(next(&Left::default()), Step::Free);
}

#[test]
fn the_agents_end_before_what_they_need_goes() {
    let (deleted, end) = until(all());
    assert_eq!(deleted, [Object::DaemonSet]);
    assert_eq!(end, Step::Wait("agents are ending on a, b".into()));
}

#[test]
fn what_is_given_back_comes_first() {
    let (deleted, end) = until(Left {
        leaving: vec!["x".into()],
        ..all()
    });
    assert_eq!(deleted, []);
    let why = "NodeConfigs are being given back first: x";
    assert_eq!(end, Step::Wait(why.into()));
}

#[test]
fn what_is_being_deleted_is_waited_for_and_not_deleted_again() {
    for object in Object::ALL {
        let left = Left {
            objects: vec![(object, true)],
            ..Left::default()
        };
        let why = format!("{object:?} is being deleted");
        assert_eq!(next(&left), Step::Wait(why));
    }
}

#[test]
fn nothing_is_waited_for_for_ever() {
    let stuck = Left {
        leaving: vec!["x".into()],
        objects: vec![(Object::DaemonSet, true), (Object::Service, false)],
        since: PATIENCE,
        ..all()
    };
    assert_eq!(until(stuck), (vec![Object::Service], Step::Free));
}
