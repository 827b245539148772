//! Certificates of authorities: in the configuration itself, or by reference.

use super::source;
use crate::content::{Contents, Source};
use crate::guard::{Findings, value};

/// Judges what is given of the two fields `ca` and `caFrom`. Whether both may be is the block's own rule.
pub(super) fn check(
    ca: Option<&str>,
    from: Option<&Source>,
    contents: &Contents,
    found: &mut Findings,
) {
    if let Some(ca) = ca {
        found.hidden("ca", value::pem(ca.as_bytes()), ca.as_bytes());
    }
    if let Some(from) = from {
        found.within("caFrom", |found| {
            if let Some(ca) = source(from, contents, found) {
                found.hidden("", value::pem(ca), ca);
            }
        });
    }
}

/// The certificates in PEM form, as far as they are there.
pub(super) fn text<'a>(
    ca: Option<&'a str>,
    from: Option<&Source>,
    contents: &'a Contents,
) -> Option<&'a [u8]> {
    match ca {
        Some(ca) => Some(ca.as_bytes()),
        None => contents.get(&from?.reference()?),
    }
}
