//! Bundles of certificates: PEM blocks behind one another, with comments between.
//!
//! The key of a certificate is its fingerprint: the SHA-256 of its DER form, in hexadecimal. Its value is
//! the certificate in PEM form, as RFC 7468 has it: whatever the lines in the file are like, the same
//! certificate has the same value.

use std::fmt::Write as _;
use std::ops::Range;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::resource::KeyPath;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// The characters of a line. Source: RFC 7468, section 2.
const LINE: usize = 64;

/// What is to be set is not the certificate that its key says.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} can't be set: it is not the fingerprint of that certificate")]
pub struct Error(pub KeyPath);

/// A certificate in a text.
struct Block {
    /// All of its lines.
    whole: Range<usize>,
    der: Vec<u8>,
}

/// The certificates in `text`, each with its key and its value.
pub fn certificates(text: &str) -> Vec<(KeyPath, String)> {
    let all = blocks(text).into_iter();
    all.map(|block| entry(&block.der)).collect()
}

/// The key and the value of a certificate in DER form.
pub fn entry(der: &[u8]) -> (KeyPath, String) {
    (key(der), pem(der))
}

/// The certificate of that fingerprint; `None` where there is none.
pub fn get(text: &str, wanted: &KeyPath) -> Option<String> {
    let mut all = certificates(text).into_iter();
    all.find(|(key, _)| key == wanted).map(|(_, pem)| pem)
}

/// `text` with that certificate. Where it is in there already it stays as it is, byte for byte.
pub fn set(text: &str, wanted: &KeyPath, value: &Value) -> Result<String, Error> {
    let refused = || Error(wanted.clone());
    let pem = value.as_str().ok_or_else(refused)?;
    if certificates(pem) != [(wanted.clone(), pem.to_owned())] {
        return Err(refused());
    }
    let mut changed = text.to_owned();
    if get(text, wanted).is_none() {
        if !text.is_empty() && !text.ends_with('\n') {
            changed.push('\n');
        }
        changed.push_str(pem);
    }
    Ok(changed)
}

/// `text` without that certificate, however often it is in there.
pub fn unset(text: &str, wanted: &KeyPath) -> String {
    let mut changed = text.to_owned();
    for block in blocks(text).into_iter().rev() {
        if key(&block.der) == *wanted {
            changed.replace_range(block.whole, "");
        }
    }
    changed
}

fn key(der: &[u8]) -> KeyPath {
    let mut hex = String::new();
    for byte in Sha256::digest(der) {
        // Nothing fails that is written to a text.
        let _ = write!(hex, "{byte:02x}");
    }
    KeyPath::top(&hex)
}

fn pem(der: &[u8]) -> String {
    let encoded = BASE64_STANDARD.encode(der);
    let mut pem = format!("{BEGIN}\n");
    for (index, c) in encoded.chars().enumerate() {
        if index > 0 && index % LINE == 0 {
            pem.push('\n');
        }
        pem.push(c);
    }
    pem + "\n" + END + "\n"
}

/// The blocks in `text`. One that does not end, or is no base64, is none.
fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        let start = end;
        end += line.len();
        match (line.trim(), &mut open) {
            (BEGIN, open) => *open = Some((start, String::new())),
            (END, open) => {
                let Some((begin, encoded)) = open.take() else {
                    continue;
                };
                let der = BASE64_STANDARD.decode(encoded);
                blocks.extend(der.ok().map(|der| Block {
                    whole: begin..end,
                    der,
                }));
            }
            (line, Some((_, encoded))) => encoded.extend(line.split_whitespace()),
            (_, None) => {}
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str = include_str!("../../../fixtures/certificates/ca.pem");

    fn ours() -> (KeyPath, String) {
        certificates(CA).remove(0)
    }

    #[test]
    fn a_certificate_is_itself_however_it_is_written() {
        let (key, pem) = ours();
        assert_eq!(key.0[0].len(), 64);
        assert_eq!(certificates(&pem), [(key.clone(), pem.clone())]);
        let wide: String = pem
            .replace('\n', "")
            .replace(BEGIN, &format!("{BEGIN}\r\n"))
            .replace(END, &format!("\r\n{END}\r\n"));
        assert_eq!(get(&wide, &key), Some(pem.clone()));
        assert_eq!(set(&wide, &key, &Value::from(pem)), Ok(wide));
    }

    #[test]
    fn one_comes_and_goes_and_the_rest_stays() {
        let (key, pem) = ours();
        let other = format!("# Somebody else's\n{BEGIN}\nAAAA\n{END}");
        let both = set(&other, &key, &Value::from(pem.clone())).unwrap();
        assert_eq!(both, format!("{other}\n{pem}"));
        assert_eq!(certificates(&both).len(), 2);
        assert_eq!(unset(&both, &key), format!("{other}\n"));
        assert_eq!(
            unset(&format!("{pem}{other}\n{pem}"), &key),
            format!("{other}\n")
        );
        assert_eq!(get(&other, &key), None);
        assert_eq!(set("", &key, &Value::from(pem.clone())).unwrap(), pem);
    }

    #[test]
    fn what_is_not_that_certificate_is_refused() {
        let (key, pem) = ours();
        let refused = Err(Error(key.clone()));
        for value in [
            Value::from(1),
            Value::from(""),
            Value::from(format!("{pem}{pem}")),
            Value::from(format!("# x\n{pem}")),
            Value::from(pem.replace("CERTIFICATE", "PRIVATE KEY")),
            Value::from(format!("{BEGIN}\nAAAA\n{END}\n")),
        ] {
            assert_eq!(set("", &key, &value), refused, "{value}");
        }
        let broken = format!("{BEGIN}\n??\n{END}\n{END}\n{BEGIN}\nAAAA");
        assert_eq!(certificates(&broken), []);
    }
}
