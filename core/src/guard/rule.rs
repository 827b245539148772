//! The rules: for each reason why a value may be refused what it stops, an example, where it comes
//! from, and what to do about an honest value. The README's table is made from here.

/// A reason why a value may be refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Stable name, shown to people and searched for in logs.
    pub name: &'static str,
    /// What it stops.
    pub stops: &'static str,
    /// A value that it stops, as a line of the corpora in `fixtures/injection`.
    pub example: &'static str,
    /// A CWE number, or the rule of the format or program that the value is for.
    pub source: &'static str,
    /// What to do when an honest value is refused.
    pub advice: &'static str,
}

macro_rules! rules {
    ($($constant:ident $name:literal {
        stops: $stops:literal,
        example: $example:literal,
        source: $source:literal,
        advice: $advice:literal,
    })*) => {
        $(
            #[doc = concat!("Stops ", $stops, ".")]
            pub const $constant: Rule = Rule {
                name: $name,
                stops: $stops,
                example: $example,
                source: $source,
                advice: $advice,
            };
        )*
        /// Every rule there is.
        pub const ALL: &[Rule] = &[$($constant),*];
    };
}

rules! {
    PATH_ABSOLUTE "path-absolute" {
        stops: "a path that depends on where somebody stands",
        example: r#"path "etc/motd""#,
        source: "CWE-22",
        advice: "use an absolute path, /etc/motd for example",
    }
    PATH_NORMAL "path-normal" {
        stops: "a path that leads elsewhere than it seems to",
        example: r#"path "/etc/edict/../motd""#,
        source: "CWE-22",
        advice: "write the path without '.', '..', '//', without a '/' at its end and without other forms of dots and slashes",
    }
    PATH_ROOT "path-root" {
        stops: "writing outside the allowed places",
        example: r#"path "/etc/unknown.conf""#,
        source: "CWE-73",
        advice: "use a path under /etc that is allowed from the start, or have the Fleet allow it in spec.paths.allowed",
    }
    PATH_EXECUTES "path-executes" {
        stops: "files that are, or name, programs for root",
        example: r#"path "/etc/cron.d/x""#,
        source: "CWE-94",
        advice: "files here are programs for root: have the Fleet allow this very path in spec.paths.allowed if that is meant",
    }
    PATH_FORBIDDEN "path-forbidden" {
        stops: "accounts, sudo, ssh, the cluster's own keys",
        example: r#"path "/etc/shadow""#,
        source: "CWE-732",
        advice: "no setting allows this path: change it by the host's own means",
    }
    PATH_PROTECTED "path-protected" {
        stops: "writing where the Fleet says not to",
        example: r#"path "/etc/edict-samples/locked/x""#,
        source: "Fleet, spec.paths.protected",
        advice: "the Fleet protects this path in spec.paths.protected: use another, or have it taken from there",
    }
    PATH_LENGTH "path-length" {
        stops: "names that no file can have",
        example: "path-of 513",
        source: "limits.h, NAME_MAX",
        advice: "use a path of at most 512 bytes with names of at most 255 bytes (the kernel's NAME_MAX)",
    }
    CONTENT_SIZE "content-size" {
        stops: "files that fill etcd",
        example: "content-size 65537",
        source: "CWE-770",
        advice: "keep each file's content within 64 KiB, or take it from a ConfigMap or Secret by contentFrom",
    }
    CONTENT_TOTAL "content-total" {
        stops: "NodeConfigs that fill etcd",
        example: "content-total 196609",
        source: "CWE-770",
        advice: "keep the contents of one NodeConfig within 192 KiB together, split it, or use contentFrom",
    }
    CONTENT_SOURCE "content-source" {
        stops: "a file with two contents, or with none",
        example: r#"config {"files": [{"path": "/etc/motd"}]}"#,
        source: "Kubernetes API conventions, unions",
        advice: "give exactly one of the ways to say the content",
    }
    RANGE "range" {
        stops: "numbers that no program takes",
        example: r#"config {"docker": {"mtu": 70000}}"#,
        source: "dockerd(8)",
        advice: "use a number of the range that the message names",
    }
    SIZE "size" {
        stops: "what is no size of a file",
        example: r#"size "10""#,
        source: "dockerd(8), log drivers json-file and local",
        advice: "write a number and k, m or g: 10m for example",
    }
    UNIT "unit" {
        stops: "what is no service, socket, timer or path of systemd",
        example: r#"unit "docker.service;id""#,
        source: "systemd.unit(5)",
        advice: "write the whole name of a service, socket, timer or path: nginx.service for example",
    }
    UNIT_POWER "unit-power" {
        stops: "units that end the host or take it from its users",
        example: r#"unit "systemd-reboot.service""#,
        source: "systemd.special(7)",
        advice: "no setting allows this unit: reboot or stop the node by the host's own means",
    }
    REFERENCE "reference" {
        stops: "names that no ConfigMap, Secret or key can have",
        example: r#"reference {"name": "UPPER", "key": "k"}"#,
        source: "RFC 1123; Kubernetes, IsConfigMapKey",
        advice: "name an object by its DNS name and a key of letters, digits, '-', '_' and '.'",
    }
    REFERENCE_OWN "reference-own" {
        stops: "Edict's own keys on their way to a file",
        example: r#"reference {"name": "edict-ca", "key": "tls.key"}"#,
        source: "CWE-441",
        advice: "names that begin with edict- are Edict's own: give the object another name",
    }
    REFERENCE_MISSING "reference-missing" {
        stops: "content that nobody has",
        example: r#"missing {"name": "absent", "key": "k"}"#,
        source: "CWE-754",
        advice: "create the object with this key in Edict's own namespace: it is taken up by itself",
    }
    REFERENCE_SIZE "reference-size" {
        stops: "more content than a revision can keep",
        example: "reference-size 1048577",
        source: "Kubernetes, MaxSecretSize",
        advice: "keep what one NodeConfig refers to within 1 MiB together, or split it",
    }
    MODE "mode" {
        stops: "set-uid and set-gid files",
        example: r#"mode "4755""#,
        source: "CWE-732",
        advice: "use an octal number of three digits such as 0644, without set-uid, set-gid or sticky bit",
    }
    OWNER "owner" {
        stops: "the user number that means none",
        example: r#"config {"files": [{"path": "/etc/motd", "content": "", "owner": {"uid": 4294967295, "gid": 0}}]}"#,
        source: "chown(2)",
        advice: "use a user and group number below 4294967295, which means none",
    }
    DUPLICATE "duplicate" {
        stops: "two entries of which one would be lost",
        example: r#"config {"files": [{"path": "/etc/motd", "content": "a"}, {"path": "/etc/motd", "content": "b"}]}"#,
        source: "CWE-694",
        advice: "name it once, and nothing below a file",
    }
    URL_SCHEME "url-scheme" {
        stops: "URLs that are no web addresses",
        example: r#"mirror "ftp://mirror.example.com""#,
        source: "CWE-939",
        advice: "use a URL that begins with http:// or https://",
    }
    URL_FORM "url-form" {
        stops: "URLs that programs read differently",
        example: r#"mirror "https://host:443""#,
        source: "WHATWG URL; CWE-436",
        advice: "use a plain URL with a host, https://mirror.example.com:5000 for example; other characters percent-encoded, no default port, no dot segments",
    }
    URL_PARTS "url-parts" {
        stops: "passwords in files that all may read, and URLs that Docker refuses",
        example: r#"mirror "https://user:password@host""#,
        source: "dockerd, ValidateMirror; CWE-522",
        advice: "leave out user name, password, query and fragment; containerd takes credentials by credentialsFrom",
    }
    URL_PATH "url-path" {
        stops: "a path that a proxy's address does not have",
        example: r#"proxy "http://proxy.example.com:3128/path""#,
        source: "RFC 9110, 7.1",
        advice: "leave out the path",
    }
    IDN "idn" {
        stops: "hosts that look like others",
        example: r#"mirror "https://ex\u0430mple.com""#,
        source: "UTS #39; CWE-1007",
        advice: "write the host in lower case, normal form and one script, or in its xn-- form",
    }
    REGISTRY "registry" {
        stops: "what is no registry's address",
        example: r#"registry "http://host""#,
        source: "dockerd, ValidateIndexName and LoadInsecureRegistries",
        advice: "use a host, host:port or a range such as 10.0.0.0/8, without http://",
    }
    HOST "host" {
        stops: "folder names that are no registry's",
        example: r#"host "docker.io/library""#,
        source: "containerd, docs/hosts.md; CWE-22",
        advice: "use the registry as image names have it, docker.io or registry.example.com:5000 for example, or _default",
    }
    PEM "pem" {
        stops: "private keys, and files that are no certificates",
        example: r#"ca "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n""#,
        source: "RFC 7468; RFC 5280",
        advice: "give one or more certificates in PEM form, and nothing else in PEM form",
    }
    CREDENTIALS "credentials" {
        stops: "user names and passwords that a header can't carry",
        example: r#"credentials {"username": "a:b", "password": "c"}"#,
        source: "RFC 7617, 2; CWE-113",
        advice: "use a user name without a colon, and neither empty nor with control characters: a line break at the end of a Secret's value is one",
    }
    CREDENTIALS_TWICE "credentials-twice" {
        stops: "two user names for one proxy",
        example: r#"config {"proxy": {"appliesTo": ["Docker"], "http": "http://user@proxy", "credentialsFrom": {"secretRef": {"name": "mirror"}}}}"#,
        source: "CWE-694",
        advice: "leave user name and password out of the URL: credentialsFrom has them",
    }
    CREDENTIALS_OPEN "credentials-open" {
        stops: "a Secret in a file that all may read",
        example: r#"config {"proxy": {"appliesTo": ["Environment"], "http": "http://proxy", "credentialsFrom": {"secretRef": {"name": "mirror"}}}}"#,
        source: "environment(5); CWE-732",
        advice: "leave Environment out, or give it a NodeConfig of its own without credentialsFrom",
    }
    NO_PROXY "no-proxy" {
        stops: "what is no exception from a proxy",
        example: r#"no-proxy "http://host""#,
        source: "golang.org/x/net/http/httpproxy",
        advice: "use a domain, .domain, *.domain, an address, a range such as 10.0.0.0/8, or * alone",
    }
    SYSCTL_KEY "sysctl-key" {
        stops: "what is no kernel setting",
        example: r#"sysctl-key "nodots""#,
        source: "sysctl.d(5)",
        advice: "use words with dots between them, net.ipv4.ip_forward for example",
    }
    SYSCTL_VALUE "sysctl-value" {
        stops: "settings of the kernel without a value",
        example: r#"sysctl-value """#,
        source: "sysctl.d(5)",
        advice: "give a value, or leave the setting out",
    }
    SYSCTL_EXECUTES "sysctl-executes" {
        stops: "kernel settings that name a program",
        example: r#"sysctl-key "kernel.core_pattern""#,
        source: "CWE-94; sysctl(2), kernel.rst",
        advice: "the kernel runs what this setting names: change it by the host's own means",
    }
    ADDRESS "address" {
        stops: "what is no IP address, or not the usual way to write it",
        example: r#"address "1.2.3""#,
        source: "hosts(5); CWE-436",
        advice: "use an address such as 10.0.0.1 or 2001:db8::1, without a port or a prefix's length",
    }
    HOST_NAME "host-name" {
        stops: "what is no host's name",
        example: r#"host-name "1.2.3.4""#,
        source: "hosts(5); RFC 1123, 2.1",
        advice: "use letters, digits, hyphens, underscores and dots, registry.example.com for example",
    }
    HOST_NAME_OWN "host-name-own" {
        stops: "localhost somewhere else",
        example: r#"host-name "localhost""#,
        source: "RFC 6761, 6.3",
        advice: "leave localhost where it is: programs on a node find each other by it",
    }
    TIME_SERVER "time-server" {
        stops: "what is no host's name or address",
        example: r#"time-server "1.2.3.4:123""#,
        source: "timesyncd.conf(5); chrony.conf(5)",
        advice: "use a name or an address, time.example.com for example, without options",
    }
    NAME_SERVER "name-server" {
        stops: "what is no name server",
        example: r#"name-server "dns.example.com""#,
        source: "resolved.conf(5)",
        advice: "use an address, 10.0.0.53 for example, perhaps with a port and with #name for TLS",
    }
    SEARCH_DOMAIN "search-domain" {
        stops: "what is no domain to look in",
        example: r#"search-domain "example.com.""#,
        source: "resolved.conf(5)",
        advice: "use example.com, ~example.com or ~. for all domains",
    }
    LIMIT_DOMAIN "limit-domain" {
        stops: "what is no user, group or everybody",
        example: r#"limit-domain "1000:2000""#,
        source: "limits.conf(5)",
        advice: "use a user's name, @ and a group's name, or * for everybody but root",
    }
    LIMIT_VALUE "limit-value" {
        stops: "what is no limit, and more open files than the kernel gives: PAM would let nobody in",
        example: r#"limit-value "1048577""#,
        source: "limits.conf(5); proc(5), fs.nr_open",
        advice: "use a number or unlimited; for nofile a number up to 1048576, for nice and priority one from -20 to 19",
    }
    MODULE "module" {
        stops: "what is no module of the kernel, or no parameter of one",
        example: r#"module "a.ko""#,
        source: "modprobe.d(5)",
        advice: "use letters, digits, underscores and hyphens, br_netfilter for example",
    }
    MODULE_VALUE "module-value" {
        stops: "values of parameters that need quotes, or that are paths: of programs, perhaps",
        example: r#"module-value "/etc/edict/x""#,
        source: "modprobe.d(5); CWE-94",
        advice: "use one word of letters, digits and _ - . , : + @ =",
    }
    UNIT_SERVICE "unit-service" {
        stops: "settings of services for units that are none",
        example: r#"config {"units": [{"unit": "docker.socket", "settings": {"LimitNOFILE": "1"}}]}"#,
        source: "systemd.service(5)",
        advice: "name a service, kubelet.service for example",
    }
    UNIT_SETTING "unit-setting" {
        stops: "settings of units that name programs, files or users",
        example: r#"unit-setting "ExecStartPre""#,
        source: "systemd.exec(5); CWE-94",
        advice: "use one of the settings that the README lists, LimitNOFILE or MemoryMax for example",
    }
    UNIT_VALUE "unit-value" {
        stops: "values that systemd would skip with a warning in its log",
        example: r#"unit-value "1k""#,
        source: "systemd.exec(5), systemd.resource-control(5), systemd.time(7)",
        advice: "write the value as systemd's manual has it: 65536, 512M, 50%, 1min30s or infinity, as the setting needs",
    }
    COMMAND "command" {
        stops: "programs that the Fleet does not let run",
        example: r#"config {"commands": [{"run": "absent"}]}"#,
        source: "Fleet, spec.commands; CWE-94",
        advice: "name a command of the Fleet's spec.commands, or have it put there",
    }
    COMMAND_PARAMETER "command-parameter" {
        stops: "parameters of a command that are missing, or that it does not have",
        example: r#"config {"commands": [{"run": "vacuum-journal"}]}"#,
        source: "Fleet, spec.commands; CWE-88",
        advice: "give every parameter that the Fleet's spec.commands has for this command, and no other",
    }
    COMMAND_VALUE "command-value" {
        stops: "what a parameter of a command can't be",
        example: r#"command-integer "9""#,
        source: "Fleet, spec.commands; CWE-20",
        advice: "use a value that the Fleet's spec.commands allows: one of its enum, within its range, matching its pattern or under its folders",
    }
    COMMAND_OPTION "command-option" {
        stops: "values that a program would take for an option",
        example: r#"command-pattern "-force""#,
        source: "CWE-88",
        advice: "use a value that does not begin with a hyphen",
    }
    CATALOGUE "catalogue" {
        stops: "commands of the Fleet that make no sense",
        example: r#"config {"commands": [{"run": "broken"}]}"#,
        source: "Fleet, spec.commands",
        advice: "have the Fleet's spec.commands mended: its status says what is wrong there",
    }
    PROBE "probe" {
        stops: "probes of nothing, or of several things at once",
        example: r#"config {"probes": [{}]}"#,
        source: "Kubernetes API conventions, unions",
        advice: "give exactly one of unit, tcp and http",
    }
    PROBE_PATH "probe-path" {
        stops: "requests that are more than one",
        example: r#"probe-path "/ HTTP/1.1\r\nHost: x""#,
        source: "RFC 9112, 3.2; CWE-113",
        advice: "begin with a slash, and write what is not visible ASCII in percent-encoding",
    }
    ADDRESS_RANGE "address-range" {
        stops: "what is no range of addresses, or not the usual way to write it",
        example: r#"address-range "10.0.0.0/8 accept""#,
        source: "RFC 4632, 3.1; RFC 5952",
        advice: "use a range such as 10.0.0.0/8 or 2001:db8::/32, with nothing behind the prefix; one address is 10.0.0.1/32",
    }
    FIREWALL_ALLOW "firewall-allow" {
        stops: "letting in everybody to every port",
        example: r#"config {"firewall": {"allow": [{}]}}"#,
        source: "CWE-284",
        advice: "give ports, from, or both",
    }
    LENGTH "length" {
        stops: "values longer than any honest one",
        example: "mirror-of 513",
        source: "CWE-1284",
        advice: "use at most 512 bytes",
    }
    CONTROL "control" {
        stops: "line breaks and other control characters",
        example: r#"path "/etc/edict/a\nb""#,
        source: "CWE-93",
        advice: "leave out control characters, line breaks and tabs included",
    }
    INVISIBLE "invisible" {
        stops: "text that looks like other text",
        example: r#"path "/etc/edict/a\u202eb""#,
        source: "CVE-2021-42574; CWE-1007",
        advice: "leave out zero-width, bidirectional and other characters that can't be seen",
    }
    SUBSTITUTION "substitution" {
        stops: "commands and variables to be filled in",
        example: r#"path "/etc/edict/$(id)""#,
        source: "CWE-77",
        advice: "leave out $(, ${, and backquotes: values are never expanded",
    }
    SPECIFIER "specifier" {
        stops: "what systemd fills in",
        example: r#"path "/etc/edict/%n""#,
        source: "systemd.unit(5), specifiers",
        advice: "leave out % unless two hexadecimal digits follow it",
    }
    SHELL "shell" {
        stops: "what ends a word or begins a command",
        example: r#"path "/etc/edict/a;b""#,
        source: "CWE-78",
        advice: "leave out ; | & < > quotes and backslashes: no shell reads this value",
    }
    BLANK "blank" {
        stops: "one value that reads as two",
        example: r#"path "/etc/edict/a b""#,
        source: "CWE-88",
        advice: "leave out blanks, also those that are not the space bar's",
    }
    ENCODED "encoded" {
        stops: "all of these in percent-encoding",
        example: r#"mirror "https://host/%0a""#,
        source: "CWE-177",
        advice: "leave out what is refused unencoded, also when percent-encoded, and encoded slashes, dots and percent signs",
    }
}

/// The names of these rules.
#[cfg(test)]
pub(crate) fn names(rules: &[&Rule]) -> Vec<&'static str> {
    rules.iter().map(|rule| rule.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_stable_in_form() {
        for (index, rule) in ALL.iter().enumerate() {
            let name = rule.name;
            let plain = |b: u8| b.is_ascii_lowercase() || b == b'-';
            assert!(name.bytes().all(plain), "{name}");
            for text in [rule.stops, rule.example, rule.source, rule.advice] {
                assert!(
                    !text.is_empty() && !text.contains('|') || name == "shell",
                    "{name}"
                );
            }
            assert!(
                ALL[..index].iter().all(|earlier| earlier.name != name),
                "{name}"
            );
        }
    }
}
