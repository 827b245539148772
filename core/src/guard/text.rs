//! Injection patterns for what stays free text, and how a refused value is shown.

use std::borrow::Cow;
use std::sync::LazyLock;

use percent_encoding::percent_decode_str;
use regex::{Captures, Regex, RegexSet, SetMatches};

use super::rule::{self, Rule};

/// The longest excerpt that is shown, in characters.
const EXCERPT_MAX: usize = 80;

const CONTROL: &str = r"\p{Cc}|[\x{2028}\x{2029}]";
/// Format characters, and fillers, joiners and selectors that other categories have.
const INVISIBLE: &str = r"\p{Cf}|[\x{34F}\x{115F}\x{1160}\x{17B4}\x{17B5}\x{180B}-\x{180F}\x{2800}\x{3164}\x{FE00}-\x{FE0F}\x{FFA0}\x{E0100}-\x{E01EF}]";

/// Each class has, besides the characters themselves, those that compatibility normalization (NFKC,
/// Unicode Standard Annex #15) makes them of: full-width forms and the like.
const PATTERNS: [(&Rule, &str); 7] = [
    (&rule::CONTROL, CONTROL),
    (&rule::INVISIBLE, INVISIBLE),
    (
        &rule::SUBSTITUTION,
        r"(?x) [`\x{1FEF}\x{FF40}]
        | [$\x{FE69}\x{FF04}]
          [({\x{207D}\x{208D}\x{2474}-\x{2487}\x{249C}-\x{24B5}\x{3200}-\x{321E}\x{3220}-\x{3243}\x{FE35}\x{FE37}\x{FE59}\x{FE5B}\x{FF08}\x{FF5B}\x{1F110}-\x{1F129}]",
    ),
    (
        &rule::SPECIFIER,
        r"%(?:[^0-9A-Fa-f]|[0-9A-Fa-f][^0-9A-Fa-f]|[0-9A-Fa-f]?$)|[\x{FE6A}\x{FF05}]",
    ),
    (
        &rule::SHELL,
        r#"[;|&<>"'\\\x{37E}\x{FE14}\x{FE54}\x{FE60}\x{FE64}\x{FE65}\x{FE68}\x{FF02}\x{FF06}\x{FF07}\x{FF1B}\x{FF1C}\x{FF1E}\x{FF3C}\x{FF5C}]"#,
    ),
    (&rule::BLANK, r"\p{Zs}"),
    // The rest of what this rule stops is found by decoding.
    (
        &rule::ENCODED,
        r"%(?i:[01][0-9a-f]|2[02567ef]|3[bce]|5c|60|7[cf])",
    ),
];

static SET: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSet::new(PATTERNS.map(|(_, pattern)| pattern))
        .expect("the patterns are constants and tested")
});

/// What shows as nothing, or as something else.
static UNSEEN: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSet::new([CONTROL, INVISIBLE]).expect("the patterns are constants and tested")
});

/// Every rule that `text` breaks.
pub fn check(text: &str) -> impl Iterator<Item = &'static Rule> {
    let broken = SET.matches(text);
    let hides = hides(text, &broken);
    let breaks = move |index, rule| broken.matched(index) || (hides && rule == &rule::ENCODED);
    let rules = PATTERNS.iter().map(|(rule, _)| *rule).enumerate();
    rules.filter_map(move |(index, rule)| breaks(index, rule).then_some(rule))
}

/// Whether percent-encoding hides what breaks a rule that `text` as it is does not break, or bytes
/// that are no text.
fn hides(text: &str, broken: &SetMatches) -> bool {
    match Cow::from(percent_decode_str(text)) {
        Cow::Borrowed(_) => false,
        Cow::Owned(bytes) => String::from_utf8(bytes).map_or(true, |decoded| {
            let mut found = SET.matches(&decoded).into_iter();
            found.any(|index| !broken.matched(index))
        }),
    }
}

/// Every rule that a user name and password of a URL break. In them every printable character may
/// stand, percent-encoded.
pub fn check_credentials(text: &str) -> impl Iterator<Item = &'static Rule> {
    let decoded = percent_decode_str(text).decode_utf8();
    let printable = decoded.is_ok_and(|decoded| !UNSEEN.is_match(&decoded));
    let printed_raw = !UNSEEN.is_match(text);
    check(text).filter(move |rule| **rule != rule::ENCODED || (printed_raw && !printable))
}

static CREDENTIALS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"://\S*@").expect("the pattern is a constant and tested"));

/// `text` with the credentials of every URL in it replaced by `***`.
pub fn mask(text: &str) -> Cow<'_, str> {
    CREDENTIALS.replace_all(text, "://***@")
}

/// One value alone may hide more: credentials with blanks in them, or without a scheme before them.
static OF_A_VALUE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new("(?s)^[^/]*:.*@|://.*@").expect("the pattern is a constant and tested")
});

/// `value` as it may be shown: credentials masked, control and invisible characters written as
/// escapes, cut to 80 characters with a mark.
pub fn excerpt(value: &str) -> String {
    // Masked before it is cut: an at sign behind the cut tells that credentials stand before it.
    let masked = OF_A_VALUE.replace(value, |found: &Captures<'_>| {
        match found[0].split_once("://") {
            Some((scheme, _)) => format!("{scheme}://***@"),
            None => "***@".to_owned(),
        }
    });
    let mut shown = String::new();
    let mut length = 0;
    for character in masked.chars() {
        if length >= EXCERPT_MAX {
            shown.push('…');
            break;
        }
        if UNSEEN.is_match(character.encode_utf8(&mut [0; 4])) {
            let escape = character.escape_unicode().to_string();
            length += escape.len();
            shown.push_str(&escape);
        } else {
            shown.push(character);
            length += 1;
        }
    }
    shown
}

/// What stands where something is left out of a text.
pub const LEFT_OUT: &str = "\n[… some of it is left out …]\n";

/// The beginning and the end of a text, with [`LEFT_OUT`] between them where it has more than `most` bytes.
pub fn shorten(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let head = text.floor_char_boundary(most / 2);
    let tail = text.ceil_char_boundary(text.len() - most / 2);
    [&text[..head], LEFT_OUT, &text[tail..]].concat()
}

/// A text of several lines with nothing in it that a terminal would obey: control characters but line
/// breaks and tabs are escaped.
pub fn visible(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for one in text.chars() {
        if one.is_control() && !matches!(one, '\n' | '\t') {
            plain.extend(one.escape_default());
        } else {
            plain.push(one);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use unicode_normalization::UnicodeNormalization as _;

    use super::*;

    #[test]
    fn nothing_reaches_a_terminal_but_text() {
        assert_eq!(visible("a\tb\n"), "a\tb\n");
        assert_eq!(visible("\u{1b}[2J\r\u{9b}"), "\\u{1b}[2J\\r\\u{9b}");
    }

    #[test]
    fn each_pattern_alone_stops_something() {
        for (text, expected) in [
            ("a\nb", "control"),
            ("a\u{2028}b", "control"),
            ("a\u{200b}b", "invisible"),
            ("a\u{202e}b", "invisible"),
            ("a\u{3164}b", "invisible"),
            ("$(id)", "substitution"),
            ("${IFS}", "substitution"),
            ("`id`", "substitution"),
            ("a;b", "shell"),
            ("a'b", "shell"),
            ("a\\b", "shell"),
            ("a b", "blank"),
            ("a\u{a0}b", "blank"),
            ("a\u{fe0f}b", "invisible"),
            ("a\u{e0041}b", "invisible"),
            ("%n", "specifier"),
            ("a%", "specifier"),
            ("a%a", "specifier"),
            ("a%%n", "specifier"),
            ("a%agb", "specifier"),
            ("a%c2%85b", "encoded"),
            ("a\"b", "shell"),
            ("a%0ab", "encoded"),
            ("a%2e%2E", "encoded"),
            ("a%7F", "encoded"),
            ("a%5cb", "encoded"),
            ("a%24%28id)", "encoded"),
            ("$%7bx}", "encoded"),
            ("%60id", "encoded"),
            ("a%3bb", "encoded"),
            ("a%26b", "encoded"),
            ("a%e2%80%aeb", "encoded"),
            ("a%c2%a0b", "encoded"),
            ("a%ef%bc%9bb", "encoded"),
            ("a%ffb", "encoded"),
            ("a%c0%aeb", "encoded"),
            ("a%2541", "encoded"),
            ("a%ef%bc%85n", "encoded"),
            ("a;b%41", "shell"),
            ("a\u{ff1b}b", "shell"),
            ("a\u{37e}b", "shell"),
            ("\u{ff04}\u{ff08}id", "substitution"),
            ("$\u{ff5b}x", "substitution"),
            ("\u{ff40}id", "substitution"),
            ("\u{ff05}n", "specifier"),
        ] {
            let rules: Vec<_> = check(text).map(|rule| rule.name).collect();
            assert_eq!(rules, [expected], "{text:?}");
        }
    }

    /// Every character of which normalization makes what a rule stops is stopped by that rule.
    #[test]
    fn compatibility_forms_are_as_what_they_stand_for() {
        let breaks = |text: &str, rule: &Rule| check(text).any(|broken| broken == rule);
        for character in '\u{80}'..=char::MAX {
            let text = character.to_string();
            let compatible: String = text.nfkc().collect();
            if compatible == text {
                continue;
            }
            for rule in [&rule::SHELL, &rule::SPECIFIER] {
                assert_eq!(breaks(&text, rule), breaks(&compatible, rule), "{text:?}");
            }
            for (text, compatible) in [
                (text.clone(), compatible.clone()),
                (format!("${text}"), format!("${compatible}")),
                (format!("{text}("), format!("{compatible}(")),
            ] {
                assert_eq!(
                    breaks(&text, &rule::SUBSTITUTION),
                    breaks(&compatible, &rule::SUBSTITUTION),
                    "{text:?}"
                );
            }
        }
    }

    #[test]
    fn credentials_may_hold_what_can_be_printed() {
        for (text, expected) in [
            ("user:p%2Fs%25%20%3b%24%28", ""),
            ("user:a%0ab", "encoded"),
            ("user:a%e2%80%aeb", "encoded"),
            ("user:a%ff", "encoded"),
            ("user:a;b", "shell"),
            ("user:a\nb", "control"),
            ("user:%n", "specifier"),
        ] {
            let rules: Vec<_> = check_credentials(text).map(|rule| rule.name).collect();
            assert_eq!(rules.join(" "), expected, "{text:?}");
        }
    }

    #[test]
    fn honest_text_passes() {
        for text in [
            "https://mirror.example.com:5000/v2/",
            "https://[2001:db8::1]:5000",
            "registry-1.docker.io",
            "10.0.0.0/8",
            "/etc/motd.d/10-welcome_v2.txt",
            "https://例え.example",
            "a%C3%A9b",
            "a%28b%29%24",
            "$HOME",
            "テスト（本番）",
        ] {
            assert_eq!(check(text).count(), 0, "{text}");
        }
    }

    #[test]
    fn excerpts_hide_nothing_but_credentials() {
        assert_eq!(excerpt("http://user:p%40ss@host/x"), "http://***@host/x");
        for hidden in [
            "http://a:b@c@host",
            "http://a:b/c@host",
            "http://a:b c\nd@host",
            "http://a?b#c@host",
            "http://a@host",
        ] {
            assert_eq!(excerpt(hidden), "http://***@host", "{hidden}");
        }
        assert_eq!(excerpt("user:secret@host:5000"), "***@host:5000");
        assert_eq!(excerpt("user:sec/ret@host"), "***@host");
        assert_eq!(excerpt("/etc/x@y:z@w"), "/etc/x@y:z@w");
        assert_eq!(
            mask("asked http://a:b@h/x and https://c/d@i, both silent"),
            "asked http://***@h/x and https://***@i, both silent"
        );
        assert_eq!(excerpt("a\nb\u{202e}'c\" d"), "a\\u{a}b\\u{202e}'c\" d");
        let long = excerpt(&"x".repeat(1000));
        assert_eq!(long, format!("{}…", "x".repeat(80)));
        assert_eq!(excerpt(&"x".repeat(80)), "x".repeat(80));
        assert_eq!(
            excerpt(&"\n".repeat(1000)),
            format!("{}…", "\\u{a}".repeat(16))
        );
    }

    #[test]
    fn no_credentials_show_however_long_they_are() {
        for length in [10, 100, 1000, 1270, 1280, 2000, 5000] {
            let shown = excerpt(&format!("http://user:{}@host", "s".repeat(length)));
            assert!(!shown.contains("ss"), "{length}: {shown}");
        }
    }
}
