//! What else on a host keeps somebody out: other tables of nftables. Pure.

use std::collections::BTreeSet;

use edict_core::guard::text::excerpt;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The most chains that are named.
const NAMED_MAX: usize = 8;
/// Verdicts, and targets of iptables, that let nobody on. Source: libnftables-json(5), STATEMENTS;
/// iptables-extensions(8).
const DROPS: [&str; 4] = ["drop", "reject", "DROP", "REJECT"];

#[derive(Deserialize)]
struct Ruleset {
    nftables: Vec<Object>,
}

/// What is listed; of others than these nothing is read.
#[derive(Deserialize)]
struct Object {
    chain: Option<Chain>,
    rule: Option<Rule>,
}

#[derive(Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    hook: Option<String>,
    policy: Option<String>,
}

#[derive(Deserialize)]
struct Rule {
    family: String,
    table: String,
    chain: String,
    #[serde(default)]
    expr: Vec<Map<String, Value>>,
}

/// A chain: family, table and name.
type Name<'a> = (&'a str, &'a str, &'a str);

/// The chains of other tables that drop or reject something of what is for the host itself, in words. `ruleset`
/// is what `nft --json list ruleset` says.
pub fn drops(ruleset: &str) -> Result<Vec<String>, serde_json::Error> {
    let Ruleset { nftables } = serde_json::from_str(ruleset)?;
    let chains = nftables.iter().filter_map(|object| object.chain.as_ref());
    let rules: Vec<_> = nftables
        .iter()
        .filter_map(|object| object.rule.as_ref())
        .collect();
    let mut open: Vec<Name<'_>> = Vec::new();
    let mut found = BTreeSet::new();
    for chain in chains {
        let own = chain.family == "inet" && chain.table == "edict";
        if chain.hook.as_deref() == Some("input") && !own {
            open.push((&chain.family, &chain.table, &chain.name));
            if chain.policy.as_deref() == Some("drop") {
                found.insert((&*chain.family, &*chain.table, &*chain.name));
            }
        }
    }
    let mut seen = BTreeSet::new();
    while let Some(chain) = open.pop() {
        if !seen.insert(chain) {
            continue;
        }
        let (family, table, name) = chain;
        let own = |rule: &&&Rule| (&*rule.family, &*rule.table, &*rule.chain) == chain;
        for (key, value) in rules
            .iter()
            .filter(own)
            .flat_map(|rule| rule.expr.iter().flatten())
        {
            match key.as_str() {
                "jump" | "goto" => {
                    let target = value.get("target").and_then(Value::as_str);
                    open.extend(target.map(|target| (family, table, target)));
                }
                "xt" if value
                    .get("name")
                    .and_then(Value::as_str)
                    .is_some_and(is_drop) =>
                {
                    found.insert((family, table, name));
                }
                key if is_drop(key) => {
                    found.insert((family, table, name));
                }
                _ => {}
            }
        }
    }
    let named = found
        .into_iter()
        .map(|(family, table, name)| excerpt(&format!("chain {name} of table {family} {table}")));
    Ok(named.collect())
}

fn is_drop(word: &str) -> bool {
    DROPS.contains(&word)
}

/// What is said of them.
pub fn sentence(drops: &[String]) -> Option<String> {
    let named = drops
        .iter()
        .take(NAMED_MAX)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    let more = drops.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    (!drops.is_empty()).then(|| {
        format!(
            "what other tables drop stays dropped, whatever the firewall lets in: see {named}{more}"
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chain(
        family: &str,
        table: &str,
        name: &str,
        hook: Option<&str>,
        policy: Option<&str>,
    ) -> Value {
        json!({"chain": {"family": family, "table": table, "name": name, "hook": hook, "policy": policy}})
    }

    fn rule(table: &str, chain: &str, expr: &Value) -> Value {
        json!({"rule": {"family": "ip", "table": table, "chain": chain, "handle": 1, "expr": expr}})
    }

    fn found(objects: &[Value]) -> Vec<String> {
        let ruleset = json!({"nftables": objects});
        drops(&ruleset.to_string()).unwrap()
    }

    #[test]
    fn what_drops_is_named_wherever_it_stands() {
        let input = Some("input");
        let objects = [
            json!({"metainfo": {"version": "1.1.3", "json_schema_version": 1}}),
            json!({"table": {"family": "ip", "name": "filter", "handle": 1}}),
            chain("ip", "filter", "INPUT", input, Some("accept")),
            chain("ip", "filter", "FORWARD", Some("forward"), Some("drop")),
            chain("ip", "filter", "KUBE-FIREWALL", None, None),
            chain("inet", "edict", "input", input, Some("drop")),
            chain("inet", "other", "input", input, Some("drop")),
            chain("ip", "mine", "in", input, None),
            rule(
                "filter",
                "INPUT",
                &json!([{"counter": null}, {"jump": {"target": "KUBE-FIREWALL"}}]),
            ),
            rule(
                "filter",
                "KUBE-FIREWALL",
                &json!([{"match": {"op": "!="}}, {"drop": null}]),
            ),
            // A loop, which the kernel has not.
            rule(
                "filter",
                "KUBE-FIREWALL",
                &json!([{"goto": {"target": "INPUT"}}]),
            ),
            rule("filter", "FORWARD", &json!([{"reject": {"type": "icmpx"}}])),
            rule(
                "mine",
                "in",
                &json!([{"xt": {"type": "target", "name": "REJECT"}}]),
            ),
            rule("filter", "nowhere", &json!([{"drop": null}])),
        ];
        assert_eq!(
            found(&objects),
            [
                "chain input of table inet other",
                "chain KUBE-FIREWALL of table ip filter",
                "chain in of table ip mine",
            ]
        );
        assert_eq!(found(&[]), [""; 0]);
        assert!(drops("nft: command not found").is_err());
    }

    #[test]
    fn a_few_are_named() {
        assert_eq!(sentence(&[]), None);
        let many: Vec<_> = (0..10).map(|n| n.to_string()).collect();
        let said = sentence(&many).unwrap();
        assert!(
            said.ends_with("see 0, 1, 2, 3, 4, 5, 6, 7 and 2 more"),
            "{said}"
        );
    }
}
