//! What the README says of the rules is what the rules say of themselves.

use std::fmt::Write as _;
use std::path::Path;

use edict_core::guard::rule;
use edict_core::guard::value::drop_in::SETTINGS;

const BEGIN: &str = "from core/src/guard/rule.rs -->\n";
const END: &str = "<!-- end of rules -->";

fn table() -> String {
    let mut table = String::from("\n| rule | stops | for example | source |\n|---|---|---|---|\n");
    for rule in rule::ALL {
        let cell = |text: &str| text.replace('|', "\\|");
        let _ = writeln!(
            table,
            "| `{}` | {} | `` {} `` | {} |",
            rule.name,
            cell(rule.stops),
            cell(rule.example),
            cell(rule.source)
        );
    }
    table.push('\n');
    table
}

#[test]
fn the_readme_has_every_rule() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(&path).expect("there is a README");
    let (head, rest) = text.split_once(BEGIN).expect("the table has a beginning");
    let (found, tail) = rest.split_once(END).expect("the table has an end");
    let wanted = table();
    if std::env::var_os("EDICT_UPDATE").is_some() {
        std::fs::write(&path, format!("{head}{BEGIN}{wanted}{END}{tail}"))
            .expect("the README can be written");
        return;
    }
    assert!(
        found == wanted,
        "the README's table of rules is not that of core/src/guard/rule.rs: \
         run `EDICT_UPDATE=1 cargo test -p e2e --test readme` and commit it"
    );
}

#[test]
fn the_readme_has_every_setting_of_a_service() {
    let readme = include_str!("../../README.md");
    let begin = readme.find("The `settings` of `units` are these");
    let text = begin.map_or("", |at| &readme[at..]);
    let text = text.split("\n\n").next().unwrap_or_default();
    let missing = SETTINGS.iter().filter(|setting| {
        let name = format!("`{}`", setting.name);
        !text.contains(&name)
    });
    let missing: Vec<_> = missing.map(|setting| setting.name).collect();
    assert!(missing.is_empty(), "not in the README: {missing:?}");
}
