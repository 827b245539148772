//! The rules: one line for each reason why a value may be refused.

/// A reason why a value may be refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Stable name, shown to people and searched for in logs.
    pub name: &'static str,
    /// What to do when an honest value is refused.
    pub advice: &'static str,
}

macro_rules! rules {
    ($($constant:ident $name:literal $advice:literal)*) => {
        $(
            #[doc = $advice]
            pub const $constant: Rule = Rule { name: $name, advice: $advice };
        )*
        /// Every rule there is.
        pub const ALL: &[Rule] = &[$($constant),*];
    };
}

rules! {
    PATH_ABSOLUTE "path-absolute" "use an absolute path, /etc/motd for example"
    PATH_NORMAL "path-normal" "write the path without '.', '..', '//' and without a '/' at its end"
    PATH_ROOT "path-root" "use a path under /etc that is allowed from the start, or have the Fleet allow it in spec.paths.allowed"
    PATH_EXECUTES "path-executes" "files here are programs for root: have the Fleet allow this very path in spec.paths.allowed if that is meant"
    PATH_FORBIDDEN "path-forbidden" "no setting allows this path: change it by the host's own means"
    PATH_PROTECTED "path-protected" "the Fleet protects this path in spec.paths.protected: use another, or have it taken from there"
    PATH_LENGTH "path-length" "use a path of at most 512 bytes with names of at most 255 bytes (the kernel's NAME_MAX)"
    CONTENT_SIZE "content-size" "keep each file's content within 64 KiB"
    CONTENT_TOTAL "content-total" "keep the contents of one NodeConfig within 192 KiB together, or split it"
    MODE "mode" "use an octal number of three digits such as 0644, without set-uid, set-gid or sticky bit"
    OWNER "owner" "use a user and group number below 4294967295, which means none"
    DUPLICATE "duplicate" "name each path once"
    URL_SCHEME "url-scheme" "use a URL that begins with http:// or https://"
    URL_FORM "url-form" "use a plain URL with a host, https://mirror.example.com:5000 for example; other characters percent-encoded"
    URL_PARTS "url-parts" "leave out user name, password, query and fragment: Docker refuses a mirror that has them"
    REGISTRY "registry" "use a host, host:port or a range such as 10.0.0.0/8, without http://"
    LENGTH "length" "use at most 512 bytes"
    CONTROL "control" "leave out control characters, line breaks and tabs included"
    INVISIBLE "invisible" "leave out zero-width and bidirectional characters: they make text look like other text"
    SUBSTITUTION "substitution" "leave out $(, ${, and backquotes: values are never expanded"
    SHELL "shell" "leave out ; | & < > quotes, backslashes and blanks: no shell reads this value"
    ENCODED "encoded" "leave out percent-encoded control characters, blanks, quotes, slashes and dots"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_stable_in_form() {
        for (index, rule) in ALL.iter().enumerate() {
            assert!(
                rule.name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'-'),
                "{}",
                rule.name
            );
            assert!(!rule.advice.is_empty());
            assert!(
                ALL[..index].iter().all(|earlier| earlier.name != rule.name),
                "{}",
                rule.name
            );
        }
    }
}
