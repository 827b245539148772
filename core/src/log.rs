//! What both programs are told to log.

/// A list of what is logged (`info, edict_agent=debug,`), without blanks and empty parts: they mean nothing.
pub fn filter(text: &str) -> String {
    let parts = text.split(',').map(str::trim);
    let parts: Vec<_> = parts.filter(|part| !part.is_empty()).collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_and_empty_parts_mean_nothing() {
        for (text, parts) in [
            ("info", "info"),
            ("edict_agent=debug, warn", "edict_agent=debug,warn"),
            (" info,, ", "info"),
            ("", ""),
        ] {
            assert_eq!(filter(text), parts, "{text:?}");
        }
    }
}
