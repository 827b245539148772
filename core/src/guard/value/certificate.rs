//! Certificates.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{PemObject as _, SectionKind};

use super::super::rule::{self, Rule};
use super::broken;

/// Certificates in PEM form, one or more, and no other PEM block among them. Text between the
/// blocks is a comment, as bundles have it.
pub fn pem(text: &[u8]) -> Vec<&'static Rule> {
    broken([(!is_pem(text), &rule::PEM)])
}

/// The certificates in a text that [`pem`] lets through, in DER form.
pub fn ders(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(text);
    sections.filter_map(|section| section.ok().map(|(_, der)| der))
}

fn is_pem(text: &[u8]) -> bool {
    let mut count = 0;
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
        let Ok((SectionKind::Certificate, der)) = section else {
            return false;
        };
        if webpki::anchor_from_trusted_cert(&CertificateDer::from(der)).is_err() {
            return false;
        }
        count += 1;
    }
    // A block of a kind that the reader does not know, it passes over.
    let begun = text.windows(11).filter(|at| *at == b"-----BEGIN ").count();
    count > 0 && begun == count
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str = include_str!("../../../../fixtures/certificates/ca.pem");

    #[test]
    fn certificates_and_nothing_else() {
        for honest in [
            CA.to_owned(),
            format!("# Ours\n{CA}\n{CA}"),
            CA.replace('\n', "\r\n"),
        ] {
            assert_eq!(pem(honest.as_bytes()), [&rule::PEM; 0], "{honest}");
        }
        for hostile in [
            String::new(),
            "hello".to_owned(),
            CA[..CA.len() / 2].to_owned(),
            CA.replace("CERTIFICATE", "PRIVATE KEY"),
            CA.replace("CERTIFICATE", "CERTIFICATE REQUEST"),
            CA.replace("CERTIFICATE", "SOMETHING ELSE"),
            format!("{CA}{}", CA.replace("CERTIFICATE", "PRIVATE KEY")),
            format!("{CA}{}", CA.replace("CERTIFICATE", "SOMETHING ELSE")),
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
        ] {
            assert_eq!(pem(hostile.as_bytes()), [&rule::PEM], "{hostile}");
        }
        assert_eq!(pem(b"\xff\xfe"), [&rule::PEM]);
    }
}
