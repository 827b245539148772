//! What else on a host keeps somebody out: other tables of nftables. Pure.

use std::collections::BTreeSet;

use edict_core::guard::text::excerpt;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The most chains that are named.
const NAMED_MAX: usize = 8;
/// Where somebody can be kept from the host itself. Source: nft(8), ADDRESS FAMILIES.
const HOOKS: [&str; 3] = ["ingress", "prerouting", "input"];
/// Targets of iptables that let nobody on. Source: iptables-extensions(8).
const TARGETS: [&str; 2] = ["DROP", "REJECT"];

/// What `nft --json list …` says.
#[derive(Deserialize)]
struct Listed {
    nftables: Vec<Object>,
}

/// What is listed; of others than these nothing is read.
#[derive(Deserialize)]
struct Object {
    chain: Option<Chain>,
    rule: Option<Rule>,
    map: Option<Map>,
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
    chain: String,
    #[serde(default)]
    expr: Vec<Statement>,
}

/// A map from what a packet is to what becomes of it.
#[derive(Deserialize)]
struct Map {
    name: String,
    #[serde(default)]
    elem: Value,
}

/// What of a statement decides on a packet: there are many rules, and most of what they say is nothing of that.
/// Source: libnftables-json(5), STATEMENTS.
#[derive(Deserialize)]
struct Statement {
    jump: Option<Target>,
    goto: Option<Target>,
    #[serde(default, deserialize_with = "is_there")]
    drop: bool,
    #[serde(default, deserialize_with = "is_there")]
    reject: bool,
    vmap: Option<Verdicts>,
    xt: Option<Extension>,
}

#[derive(Deserialize)]
struct Target {
    target: String,
}

#[derive(Deserialize)]
struct Verdicts {
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
struct Extension {
    name: Option<String>,
}

/// Such a statement may have nothing to it.
fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

impl Chain {
    fn is_edicts(&self) -> bool {
        self.family == "inet" && self.table == "edict"
    }

    /// Whether something that is for the host comes here first.
    fn is_first(&self) -> bool {
        let hook = self.hook.as_deref();
        hook.is_some_and(|hook| HOOKS.contains(&hook)) && !self.is_edicts()
    }
}

/// Family and name of each table that something for the host comes by, but for Edict's own. `chains` is what `nft
/// --json list chains` says.
pub fn tables(chains: &str) -> Result<BTreeSet<(String, String)>, serde_json::Error> {
    let Listed { nftables } = serde_json::from_str(chains)?;
    let chains = nftables.into_iter().filter_map(|object| object.chain);
    let first = chains.filter(Chain::is_first);
    Ok(first.map(|chain| (chain.family, chain.table)).collect())
}

/// The chains of a table that drop or reject something of what is for the host, in words. `table` is what `nft
/// --json list table FAMILY NAME` says.
pub fn drops(table: &str) -> Result<Vec<String>, serde_json::Error> {
    let Listed { nftables } = serde_json::from_str(table)?;
    let (mut open, mut found) = (Vec::new(), BTreeSet::new());
    let (mut chains, mut rules, mut maps) = (Vec::new(), Vec::new(), Vec::new());
    for Object { chain, rule, map } in &nftables {
        chains.extend(chain);
        rules.extend(rule);
        maps.extend(map);
    }
    for chain in chains.iter().filter(|chain| chain.is_first()) {
        open.push(&*chain.name);
        if chain.policy.as_deref() == Some("drop") {
            found.insert(&*chain.name);
        }
    }
    let mut seen = BTreeSet::new();
    while let Some(name) = open.pop() {
        if !seen.insert(name) {
            continue;
        }
        let own = rules.iter().filter(|rule| rule.chain == name);
        for statement in own.flat_map(|rule| &rule.expr) {
            let Statement { jump, goto, .. } = statement;
            open.extend(jump.iter().chain(goto).map(|to| &*to.target));
            let target = statement.xt.as_ref().and_then(|xt| xt.name.as_deref());
            let mut drops = statement.drop || statement.reject;
            drops |= target.is_some_and(|target| TARGETS.contains(&target));
            for data in statement.vmap.iter().map(|vmap| &vmap.data) {
                let named = data.as_str().and_then(|name| name.strip_prefix('@'));
                let named = maps.iter().find(|map| Some(&*map.name) == named);
                drops |= verdicts(named.map_or(data, |map| &map.elem), &mut open);
            }
            if drops {
                found.insert(name);
            }
        }
    }
    let place = chains
        .first()
        .map(|chain| format!("{} {}", chain.family, chain.table));
    let place = place.unwrap_or_default();
    let named = found.into_iter();
    let named = named.map(|name| excerpt(&format!("chain {name} of table {place}")));
    Ok(named.collect())
}

/// Whether one of these verdicts drops; where others go on is added to `open`.
fn verdicts<'a>(map: &'a Value, open: &mut Vec<&'a str>) -> bool {
    let mut drops = false;
    match map {
        Value::Array(all) => {
            for one in all {
                drops |= verdicts(one, open);
            }
        }
        Value::Object(all) => {
            for (key, value) in all {
                if key == "jump" || key == "goto" {
                    open.extend(value.get("target").and_then(Value::as_str));
                }
                drops |= key == "drop" || verdicts(value, open);
            }
        }
        _ => {}
    }
    drops
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

    fn rule(chain: &str, expr: &Value) -> Value {
        json!({"rule": {"family": "ip", "table": "filter", "chain": chain, "handle": 1, "expr": expr}})
    }

    fn listed(objects: &[Value]) -> String {
        json!({"nftables": objects}).to_string()
    }

    #[test]
    fn tables_that_something_comes_by_are_asked_for() {
        let chains = [
            json!({"metainfo": {"version": "1.1.3", "json_schema_version": 1}}),
            chain("ip", "filter", "INPUT", Some("input"), Some("accept")),
            chain("ip", "filter", "OUTPUT", Some("output"), Some("drop")),
            chain("ip", "nat", "POSTROUTING", Some("postrouting"), None),
            chain("ip6", "raw", "PREROUTING", Some("prerouting"), None),
            chain("netdev", "gate", "in", Some("ingress"), None),
            chain("inet", "edict", "input", Some("input"), Some("drop")),
            chain("inet", "mine", "part", None, None),
        ];
        let table = |family: &str, name: &str| (family.to_owned(), name.to_owned());
        assert_eq!(
            tables(&listed(&chains)).unwrap(),
            [
                table("ip", "filter"),
                table("ip6", "raw"),
                table("netdev", "gate")
            ]
            .into()
        );
        assert!(tables(&listed(&[])).unwrap().is_empty());
        assert!(tables("nft: command not found").is_err());
    }

    #[test]
    fn what_drops_is_named_wherever_it_stands() {
        let named = |name| chain("ip", "filter", name, None, None);
        let objects = [
            json!({"table": {"family": "ip", "name": "filter", "handle": 1}}),
            chain("ip", "filter", "INPUT", Some("input"), Some("accept")),
            chain("ip", "filter", "SECOND", Some("input"), Some("drop")),
            chain("ip", "filter", "FORWARD", Some("forward"), Some("drop")),
            named("KUBE-FIREWALL"),
            named("BY-TARGET"),
            named("BY-MAP"),
            named("BEHIND-MAP"),
            named("NOWHERE"),
            json!({"map": {"name": "verdicts", "elem": [["10.0.0.1", {"goto": {"target": "BEHIND-MAP"}}]]}}),
            rule(
                "INPUT",
                &json!([{"counter": null}, {"jump": {"target": "KUBE-FIREWALL"}}]),
            ),
            rule("INPUT", &json!([{"goto": {"target": "BY-TARGET"}}])),
            rule("INPUT", &json!([{"jump": {"target": "BY-MAP"}}])),
            rule(
                "KUBE-FIREWALL",
                &json!([{"match": {"op": "!="}}, {"drop": null}]),
            ),
            // A loop, which the kernel has not.
            rule("KUBE-FIREWALL", &json!([{"goto": {"target": "INPUT"}}])),
            rule(
                "BY-TARGET",
                &json!([{"xt": {"type": "target", "name": "REJECT"}}]),
            ),
            rule(
                "BY-MAP",
                &json!([{"vmap": {"key": {}, "data": {"set": [[1, {"accept": null}], [2, {"drop": null}]]}}}]),
            ),
            rule(
                "BY-MAP",
                &json!([{"vmap": {"key": {}, "data": "@verdicts"}}]),
            ),
            rule("BEHIND-MAP", &json!([{"reject": {"type": "icmpx"}}])),
            rule("FORWARD", &json!([{"reject": {"type": "icmpx"}}])),
            rule("NOWHERE", &json!([{"drop": null}])),
        ];
        let expected = [
            "BEHIND-MAP",
            "BY-MAP",
            "BY-TARGET",
            "KUBE-FIREWALL",
            "SECOND",
        ];
        let expected = expected.map(|name| format!("chain {name} of table ip filter"));
        assert_eq!(drops(&listed(&objects)).unwrap(), expected);
        assert_eq!(drops(&listed(&[])).unwrap(), [""; 0]);
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
