//! URLs: of mirrors, and what all URLs have in common.

use std::cell::Cell;

use percent_encoding::percent_decode_str;
use unicode_security::{RestrictionLevel, RestrictionLevelDetection as _};
use url::{Host, SyntaxViolation, Url};

use super::super::rule::{self, Rule};
use super::{LENGTH_MAX, broken};

/// A registry mirror: an http or https URL with a host and perhaps a port and a path.
///
/// Source: `ValidateMirror` of the Docker daemon, which refuses other schemes, user names, queries
/// and fragments; containerd appends to the path.
pub fn mirror(text: &str) -> Vec<&'static Rule> {
    let parts = Parts::of(text);
    broken([
        (text.len() > LENGTH_MAX, &rule::LENGTH),
        (!has_scheme(text, &["http", "https"]), &rule::URL_SCHEME),
        (!parts.plain, &rule::URL_FORM),
        (parts.secret || parts.behind, &rule::URL_PARTS),
        (parts.lookalike, &rule::IDN),
    ])
}

pub(super) fn has_scheme(text: &str, schemes: &[&str]) -> bool {
    text.split_once("://")
        .is_some_and(|(scheme, _)| schemes.contains(&scheme))
}

/// Scheme, authority and what comes behind, as they are written.
pub(super) fn split(text: &str) -> (&str, &str, &str) {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    (scheme, authority, tail)
}

/// What a URL has.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is the answer to a question of its own"
)]
#[derive(Debug, Default, PartialEq)]
pub(super) struct Parts {
    /// It is a URL with a host, and what a parser reads back is what was written.
    pub plain: bool,
    /// A user name or password, be it an empty one.
    pub secret: bool,
    /// A path other than `/`.
    pub path: bool,
    /// A query or fragment.
    pub behind: bool,
    /// A host that is written in another form than its own, or in several scripts.
    pub lookalike: bool,
}

impl Parts {
    pub fn of(text: &str) -> Self {
        // Asked of the text: the parser forgets an empty user name.
        let (_, authority, tail) = split(text);
        let secret = authority.contains('@');
        // The parser of the WHATWG mends what it can (blanks, tabs, backslashes); others do not.
        // A password in it is no mending.
        let mended = Cell::new(false);
        let note = |violation: SyntaxViolation| {
            mended.set(mended.get() || violation != SyntaxViolation::EmbeddedCredentials);
        };
        let parsed = Url::options()
            .syntax_violation_callback(Some(&note))
            .parse(text);
        let Ok(url) = parsed else {
            return Self {
                secret,
                ..Self::default()
            };
        };
        let (_, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (lookalike, host_read) = read_host(&url, host);
        let tail_read = &url[url::Position::BeforePath..];
        // What the parser reads back must be what was written: no default port dropped, no dot
        // segments folded. It escapes what is not ASCII, which means the same.
        let same_tail =
            escaped(tail) == escaped(tail_read) || (tail.is_empty() && tail_read == "/");
        Self {
            plain: !mended.get()
                && url.has_host()
                && !host.is_empty()
                && (host_read || lookalike)
                && same_tail
                && !has_odd_escape(text),
            secret,
            path: !matches!(url.path(), "" | "/"),
            behind: url.query().is_some() || url.fragment().is_some(),
            lookalike,
        }
    }
}

/// Whether the host is written in another form than its own, and whether `text` (host and port)
/// reads back as it is.
fn read_host(url: &Url, text: &str) -> (bool, bool) {
    let port = url
        .port()
        .map_or_else(String::new, |port| format!(":{port}"));
    let name = match url.host() {
        Some(Host::Domain(name)) => name,
        Some(address) => return (false, format!("{address}{port}") == text),
        None => return (false, false),
    };
    // A scheme that is not of the web leaves its host as it is: judged as if it were.
    let name = idna::domain_to_ascii(name).unwrap_or_else(|_| name.to_owned());
    let (unicode, _) = idna::domain_to_unicode(&name);
    let written = text.strip_suffix(&port).unwrap_or(text);
    if written.is_ascii() {
        return (false, format!("{name}{port}") == text);
    }
    let mixed = unicode.split('.').any(|label| {
        !label.is_ascii() && label.detect_restriction_level() > RestrictionLevel::HighlyRestrictive
    });
    (
        mixed || unicode != written,
        format!("{unicode}{port}") == text,
    )
}

/// `text` with everything that is not ASCII percent-encoded.
fn escaped(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::CONTROLS).to_string()
}

/// A percent sign that encodes nothing, or bytes that are no text.
fn has_odd_escape(text: &str) -> bool {
    percent_decode_str(text).decode_utf8().is_err()
}
