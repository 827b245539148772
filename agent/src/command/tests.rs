use super::*;

fn program(name: &str) -> Program {
    Program {
        name: name.to_owned(),
        argv: vec![format!("/bin/{name}")],
        timeout_seconds: 60,
        memory_mib: 256,
        tasks: 64,
        output_kib: 16,
    }
}

fn expecting(revisions: &[(&str, &str, &[&str])]) -> Commands {
    let mut commands = Commands::default();
    for (uid, digest, names) in revisions {
        let programs = names.iter().map(|name| program(name)).collect();
        commands.expect(uid, uid, digest, programs);
    }
    commands
}

fn in_force(layers: &[(&str, &str)]) -> InForce {
    let owned = |(uid, digest): &(&str, &str)| ((*uid).to_owned(), (*digest).to_owned());
    layers.iter().map(owned).collect()
}

fn next(commands: &Commands, layers: &[(&str, &str)]) -> Option<(String, String, usize)> {
    let (which, _) = commands.next(&in_force(layers))?;
    Some((which.uid, which.digest, which.index))
}

fn at(uid: &str, digest: &str, index: usize) -> Which {
    Which {
        uid: uid.to_owned(),
        owner: uid.to_owned(),
        digest: digest.to_owned(),
        index,
    }
}

fn end(commands: &mut Commands, which: &Which, outcome: CommandOutcome) {
    commands.set(which, |run| run.outcome = outcome);
}

fn outcomes(commands: &Commands, layers: &[(&str, &str)]) -> Vec<(u32, CommandOutcome)> {
    let reports = commands.reports(&in_force(layers), "").into_iter();
    reports.map(|one| (one.index, one.outcome)).collect()
}

#[test]
fn each_is_run_once_for_each_revision() {
    use CommandOutcome::{Running, Succeeded};
    let mut commands = expecting(&[("a", "1", &["x", "y"]), ("b", "1", &["z"])]);
    let layers = [("a", "1"), ("b", "1")];
    // In turn.
    for (uid, index) in [("a", 0), ("b", 0), ("a", 1)] {
        assert_eq!(
            next(&commands, &layers),
            Some((uid.into(), "1".into(), index))
        );
        end(&mut commands, &at(uid, "1", index), Running);
        assert_eq!(
            next(&commands, &layers),
            Some((uid.into(), "1".into(), index))
        );
        end(&mut commands, &at(uid, "1", index), Succeeded);
    }
    assert_eq!(next(&commands, &layers), None);
    // The same once more is nothing new, also when another one was in force meanwhile.
    assert!(!commands.expect("a", "a", "1", vec![program("x"), program("w")]));
    assert!(commands.expect("a", "a", "2", vec![program("x")]));
    assert!(!commands.expect("a", "a", "3", vec![]));
    assert_eq!(commands.begun("a", "1"), [true, true]);
    assert_eq!(commands.begun("a", "2"), [false]);
    assert_eq!(commands.begun("a", "3"), [false; 0]);
    // What waits is what the catalogue says now.
    assert!(commands.expect("a", "a", "2", vec![program("w")]));
    let (_, run) = commands.next(&in_force(&[("a", "2")])).unwrap();
    assert_eq!(run.program, program("w"));
    assert_eq!(
        next(&commands, &[("a", "2")]),
        Some(("a".into(), "2".into(), 0))
    );
    assert_eq!(next(&commands, &[("a", "1")]), None);
}

#[test]
fn only_what_is_in_force_is_started_and_what_runs_is_looked_after() {
    let mut commands = expecting(&[("a", "1", &["x"]), ("b", "1", &["z"])]);
    assert_eq!(next(&commands, &[]), None);
    assert_eq!(next(&commands, &[("a", "2")]), None);
    let b = at("b", "1", 0);
    end(&mut commands, &b, CommandOutcome::Running);
    let running = Some(("b".into(), "1".into(), 0));
    assert_eq!(next(&commands, &[]), running);
    assert_eq!(next(&commands, &[("a", "1")]), running);
}

#[test]
fn what_comes_to_nothing_holds_up_those_behind_it() {
    use CommandOutcome::{Failed, Interrupted, Skipped, Succeeded, TimedOut, Waiting};
    for outcome in [Failed, TimedOut, Interrupted] {
        let mut commands = expecting(&[("a", "1", &["x", "y", "z"]), ("b", "1", &["w"])]);
        let layers = [("a", "1"), ("b", "1")];
        end(&mut commands, &at("a", "1", 0), Succeeded);
        end(&mut commands, &at("a", "1", 1), outcome);
        let expected = [(0, Succeeded), (1, outcome), (2, Skipped), (0, Waiting)];
        assert_eq!(outcomes(&commands, &layers), expected);
        assert_eq!(next(&commands, &layers), Some(("b".into(), "1".into(), 0)));
        let reports = commands.reports(&in_force(&layers), "");
        assert_eq!(reports[2].message, "y before it came to nothing");
    }
}

#[test]
fn what_is_not_there_is_not_changed() {
    let mut commands = expecting(&[("a", "1", &["x"])]);
    let before = commands.clone();
    for which in [at("b", "1", 0), at("a", "2", 0), at("a", "1", 1)] {
        end(&mut commands, &which, CommandOutcome::Failed);
    }
    assert_eq!(commands, before);
}

#[test]
fn the_oldest_is_forgotten_and_nothing_that_matters() {
    let mut commands = expecting(&[("a", "1", &["x"]), ("b", "1", &["y"])]);
    let long = |run: &mut Run| run.end.output = "said".to_owned();
    end(&mut commands, &at("b", "1", 0), CommandOutcome::Running);
    for n in 0..REMEMBERED + 2 {
        let digest = n.to_string();
        commands.expect("c", "c", &digest, vec![program("z")]);
        end(
            &mut commands,
            &at("c", &digest, 0),
            CommandOutcome::Succeeded,
        );
        commands.set(&at("c", &digest, 0), long);
    }
    commands.set(&at("a", "1", 0), long);
    let layers = in_force(&[("a", "1")]);
    commands.forget(&layers);
    let knows = |uid: &str, digest: &str| !commands.begun(uid, digest).is_empty();
    assert!(knows("a", "1") && knows("b", "1"));
    assert!(!knows("c", "0") && !knows("c", "1") && knows("c", "2"));
    assert_eq!(commands.reports(&layers, "")[0].output, "said");
    let last = in_force(&[("c", &(REMEMBERED + 1).to_string())]);
    assert_eq!(commands.reports(&last, "")[0].output, "");
}

#[test]
fn all_outputs_fit() {
    let names = ["x"; 16];
    let mut commands = expecting(&[("a", "1", &names)]);
    let layers = in_force(&[("a", "1")]);
    for index in 0..names.len() {
        commands.set(&at("a", "1", index), |run| {
            run.outcome = CommandOutcome::Succeeded;
            run.end.output = "o".repeat(64 * 1024);
        });
    }
    // What is said has a share each.
    let said = |commands: &Commands| -> Vec<_> {
        let reports = commands.reports(&layers, "").into_iter();
        reports.map(|one| one.output.len()).collect()
    };
    let share = SAID_MAX / 16;
    assert!(
        said(&commands)
            .iter()
            .all(|length| (share..share + 100).contains(length))
    );
    // What is kept are the newest.
    commands.forget(&layers);
    let kept: Vec<_> = said(&commands).iter().map(|length| *length > 0).collect();
    assert_eq!(kept, [[false; 12].as_slice(), &[true; 4]].concat());
}

#[test]
fn what_waits_says_why() {
    let mut commands = expecting(&[("a", "1", &["x", "y"])]);
    end(&mut commands, &at("a", "1", 0), CommandOutcome::Succeeded);
    let reports = commands.reports(&in_force(&[("a", "1")]), "for this reason");
    let said: Vec<_> = reports.iter().map(|one| &*one.message).collect();
    assert_eq!(said, ["", "for this reason"]);
}

#[test]
fn a_unit_is_named_by_what_it_is_for() {
    let digest = "0123456789abcdef0123";
    let uid = "5f0c-11";
    assert_eq!(
        at(uid, digest, 3).unit(),
        "edict-command-5f0c-11-0123456789abcdef-3.service"
    );
    assert_eq!(
        at("a@/b %x", "1", 0).unit(),
        "edict-command-abx-1-0.service"
    );
    assert!(at(&"u".repeat(300), digest, 0).unit().len() < 200);
}

#[test]
fn a_long_output_keeps_both_ends() {
    assert_eq!(kept(b"plain\n", 100), "plain\n");
    assert_eq!(text::shorten("abcdef", 6), "abcdef");
    assert_eq!(
        text::shorten("abcdefg", 6),
        "abc\n[… some of it is left out …]\nefg"
    );
    // Not within a character.
    assert_eq!(
        text::shorten("aéééb", 6),
        "aé\n[… some of it is left out …]\néb"
    );
    assert_eq!(
        kept(b"https://user:word@host \x1b[31m\xff", 100),
        "https://***@host \\u{1b}[31m\u{fffd}"
    );
}
