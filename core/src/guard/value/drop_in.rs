//! Settings of systemd units that a drop-in may have.

use std::sync::LazyLock;

use regex::Regex;

use super::super::rule::{self, Rule};
use super::broken;
use crate::resource::Action;

/// A setting of a unit.
#[derive(Debug)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// The section that it stands in.
    pub section: &'static str,
    /// What its value looks like, all of it.
    form: &'static str,
    /// The least that makes it live.
    pub action: Action,
}

/// Numbers are decimal, without zeros before them: systemd reads those as octal. None is so long that it
/// would not fit, with its suffix, into 64 bits: systemd skips those.
///
/// A limit of processes: one, or a soft and a hard one. Source: systemd.exec(5).
const LIMIT: &str = "(?:0|[1-9][0-9]{0,17}|infinity)(?::(?:0|[1-9][0-9]{0,17}|infinity))?";
/// A limit in bytes.
const LIMIT_BYTES: &str = "(?:0|[1-9][0-9]{0,17}|[1-9][0-9]{0,5}[KMGT]|infinity)(?::(?:0|[1-9][0-9]{0,17}|[1-9][0-9]{0,5}[KMGT]|infinity))?";
/// An amount of memory. Source: systemd.resource-control(5).
const MEMORY: &str = "[1-9][0-9]{0,17}|[1-9][0-9]{0,5}[KMGT]|(?:100|[1-9][0-9]?)%|infinity";
/// One that may be none.
const MEMORY_OR_NONE: &str =
    "0|[1-9][0-9]{0,17}|[1-9][0-9]{0,5}[KMGT]|(?:100|[1-9]?[0-9])%|infinity";
/// A weight. Source: systemd.resource-control(5).
const WEIGHT: &str = "[1-9][0-9]{0,3}|10000";
/// A time span. Source: systemd.time(7).
const TIME: &str =
    "0|[1-9][0-9]{0,5}|(?:(?:0|[1-9][0-9]{0,5})(?:us|ms|s|sec|min|m|h|d|w)){1,4}|infinity";
const COUNT: &str = "0|[1-9][0-9]{0,8}";

const fn exec(name: &'static str, form: &'static str) -> Setting {
    Setting {
        name,
        section: "Service",
        form,
        action: Action::Restart,
    }
}

/// What systemd itself reads, and has in force as soon as it has.
const fn manager(section: &'static str, name: &'static str, form: &'static str) -> Setting {
    Setting {
        name,
        section,
        form,
        action: Action::Reread,
    }
}

/// The settings. What they have in common: none names a program, a file, a user or another unit.
pub const SETTINGS: &[Setting] = &[
    manager("Service", "CPUQuota", "[1-9][0-9]{0,5}%"),
    manager("Service", "CPUWeight", "[1-9][0-9]{0,3}|10000|idle"),
    manager("Service", "IOWeight", WEIGHT),
    exec("LimitCORE", LIMIT_BYTES),
    exec("LimitFSIZE", LIMIT_BYTES),
    exec("LimitMEMLOCK", LIMIT_BYTES),
    exec("LimitNOFILE", LIMIT),
    exec("LimitNPROC", LIMIT),
    exec("LimitSTACK", LIMIT_BYTES),
    manager("Service", "MemoryHigh", MEMORY),
    manager("Service", "MemoryLow", MEMORY_OR_NONE),
    manager("Service", "MemoryMax", MEMORY),
    manager("Service", "MemoryMin", MEMORY_OR_NONE),
    manager("Service", "MemorySwapMax", MEMORY_OR_NONE),
    exec("Nice", "0|-20|-?(?:1[0-9]|[1-9])"),
    manager("Service", "OOMPolicy", "continue|stop|kill"),
    exec("OOMScoreAdjust", "0|-?(?:1000|[1-9][0-9]{0,2})"),
    manager(
        "Service",
        "Restart",
        "no|on-success|on-failure|on-abnormal|on-watchdog|on-abort|always",
    ),
    manager("Service", "RestartSec", TIME),
    manager("Unit", "StartLimitBurst", COUNT),
    manager("Unit", "StartLimitIntervalSec", TIME),
    manager(
        "Service",
        "TasksMax",
        "[1-9][0-9]{0,8}|(?:100|[1-9][0-9]?)%|infinity",
    ),
    manager("Service", "TimeoutStartSec", TIME),
    manager("Service", "TimeoutStopSec", TIME),
];

static FORMS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let form = |setting: &Setting| {
        Regex::new(&format!(r"\A(?:{})\z", setting.form))
            .expect("the forms are constants and tested")
    };
    SETTINGS.iter().map(form).collect()
});

/// The setting of that name.
pub fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// Whether a drop-in may have this setting.
pub fn setting_name(name: &str) -> Vec<&'static Rule> {
    broken([(setting(name).is_none(), &rule::UNIT_SETTING)])
}

/// Whether this is a value of that setting; of one that there is not, nothing is said.
pub fn setting_value(name: &str, value: &str) -> Vec<&'static Rule> {
    let at = SETTINGS.iter().position(|setting| setting.name == name);
    let holds = at.is_none_or(|at| {
        value.len() <= 64
            && FORMS[at].is_match(value)
            && (!name.starts_with("Limit") || is_limit(value))
    });
    broken([(!holds, &rule::UNIT_VALUE)])
}

/// Whether the soft limit is no greater than the hard one.
fn is_limit(value: &str) -> bool {
    let number = |text: &str| {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_uppercase());
        let unit = match &text[digits.len()..] {
            "K" => 1_u128 << 10,
            "M" => 1 << 20,
            "G" => 1 << 30,
            "T" => 1 << 40,
            _ => 1,
        };
        // What is no number is infinity.
        digits
            .parse()
            .map_or(u128::MAX, |number: u128| number * unit)
    };
    let both = value.split_once(':');
    both.is_none_or(|(soft, hard)| number(soft) <= number(hard))
}

#[cfg(test)]
mod tests {
    use super::super::super::rule::names;
    use super::*;

    #[test]
    fn values_have_the_form_that_systemd_reads() {
        for (name, honest, hostile) in [
            (
                "CPUQuota",
                &["20%", "400%"][..],
                &["0%", "20", "%", "20%%", "1.5%"][..],
            ),
            ("CPUWeight", &["1", "10000", "idle"], &["0", "10001", "x"]),
            ("IOWeight", &["100"], &["idle", "0"]),
            (
                "LimitNOFILE",
                &["65536", "infinity", "1024:524288", "1024:infinity"],
                &["", "1k", "-1", "1:2:3", "1K"],
            ),
            ("LimitMEMLOCK", &["64M", "1G:infinity"], &["64MB", "M"]),
            (
                "MemoryMax",
                &["512M", "50%", "100%", "infinity", "1073741824"],
                &["101%", "1E", "-1", "1 G"],
            ),
            ("Nice", &["-20", "19", "0", "-5"], &["-21", "100", "+1"]),
            ("OOMPolicy", &["continue"], &["Continue", ""]),
            (
                "OOMScoreAdjust",
                &["-1000", "1000", "-999", "0"],
                &["-1001", "1001", "9999"],
            ),
            ("Restart", &["always", "on-failure"], &["yes"]),
            (
                "RestartSec",
                &["5", "5s", "1min30s", "100ms", "infinity"],
                &["5 s", "s", "-1", "5y\n"],
            ),
            ("StartLimitBurst", &["5"], &["infinity", "-1"]),
            ("TasksMax", &["4096", "infinity", "80%"], &["101%", "4k"]),
        ] {
            for value in honest {
                assert_eq!(
                    names(&setting_value(name, value)),
                    [""; 0],
                    "{name}={value}"
                );
            }
            for value in hostile {
                assert_eq!(
                    names(&setting_value(name, value)),
                    ["unit-value"],
                    "{name}={value}"
                );
            }
        }
        for value in [
            "5\nExecStart=/bin/sh",
            "5;id",
            "%n",
            "$(id)",
            " 5",
            "5 ",
            "5\n",
            "",
        ] {
            for setting in SETTINGS {
                let rules = setting_value(setting.name, value);
                assert_eq!(names(&rules), ["unit-value"], "{}={value}", setting.name);
            }
        }
        for (name, value) in [
            ("MemoryMax", "0"),
            ("MemoryHigh", "0%"),
            ("TasksMax", "0"),
            ("LimitNOFILE", "2048:1024"),
            ("LimitFSIZE", "infinity:1"),
            ("LimitFSIZE", "1G:1M"),
            ("LimitNOFILE", "0200000"),
            ("LimitCORE", "1000000T"),
            ("MemoryMin", "9999999G"),
            ("LimitNPROC", "1000000000000000000"),
            ("OOMScoreAdjust", "089"),
            ("StartLimitBurst", "010"),
            ("RestartSec", "1000000w"),
        ] {
            assert_eq!(
                names(&setting_value(name, value)),
                ["unit-value"],
                "{name}={value}"
            );
        }
        for (name, value) in [
            ("MemoryMin", "0"),
            ("LimitFSIZE", "1M:1G"),
            ("LimitFSIZE", "1024K:1M"),
            ("LimitNOFILE", "1:infinity"),
            ("LimitCORE", "999999T"),
        ] {
            assert_eq!(
                names(&setting_value(name, value)),
                [""; 0],
                "{name}={value}"
            );
        }
    }

    #[test]
    fn what_names_a_program_is_no_setting() {
        for name in [
            "ExecStart",
            "ExecStartPre",
            "Environment",
            "EnvironmentFile",
            "User",
            "RootDirectory",
            "OnFailure",
            "Wants",
            "FailureAction",
            "limitnofile",
            "LimitNOFILE ",
            "",
            "LimitNOFILE=1\nExecStart",
        ] {
            assert_eq!(names(&setting_name(name)), ["unit-setting"], "{name}");
        }
        assert_eq!(names(&setting_name("LimitNOFILE")), [""; 0]);
        let sorted = SETTINGS.is_sorted_by_key(|setting| setting.name);
        assert!(sorted, "people look them up");
    }
}
