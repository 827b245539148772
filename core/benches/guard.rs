//! What the guard costs: its check of free text beside one pass of a regular expression over the
//! same bytes, then hostile texts, then whole configurations.
//!
//! Two things are compared within one run, turn by turn, and the best turn of each counts: what
//! slows the machine down for a while slows both, and a ratio says more than the nanoseconds of
//! one machine.
//!
//! `cargo bench --package edict-core`

use std::hint::black_box;
use std::io::{self, StdoutLock, Write as _};
use std::time::{Duration, Instant};

use edict_core::config::files::{File, Files};
use edict_core::config::{Config, Docker};
use edict_core::content::Contents;
use edict_core::guard::{Policy, text};
use regex::Regex;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const SIZES: [usize; 4] = [KIB, 8 * KIB, 64 * KIB, MIB];

/// How much slower than the plain pass the check of honest text may be.
const RATIO_MAX: f64 = 5.0;
/// How far its time per byte may be from that of the shortest text: it is linear.
const DRIFT_MAX: f64 = 0.20;
/// The same for hostile texts, where a turn is short of the best more often.
const HOSTILE_DRIFT_MAX: f64 = 0.50;

/// Long enough that reading the clock does not count, short enough for many turns.
const TURN: Duration = Duration::from_millis(4);
const TURNS: usize = 41;

/// A class that is in none of these texts, so that the plain pass reads every byte. It is beyond
/// ASCII as the guard's own are: for a few bytes the crate would take a vectorized search instead
/// of an automaton, which no set of rules can be measured by.
const ABSENT: &str = r"\p{Co}";

/// Texts that break no rule.
const HONEST: [(&str, &str); 2] = [
    (
        "ASCII",
        "https://mirror.example.com:5000/v2/docker-hub/,registry-1.docker.io:443,10.20.0.0/16,\
         /etc/motd.d/10-welcome_v2.txt,$HOME,a%C3%A9b,",
    ),
    (
        "partly beyond ASCII",
        "https://bücher.example/,https://例え.example/caf%C3%A9/é,registry.example.com:5000,\
         /etc/edict/überall.conf,mirror-größe_42,",
    ),
];

/// Texts that make a careless matcher go back over what it has read.
const HOSTILE: [(&str, &str); 10] = [
    ("://", "://"),
    ("://@", "://@"),
    ("://x@ and a blank", "://x@ "),
    ("@", "@"),
    ("%", "%"),
    ("%2", "%2"),
    ("quotes", "\"'`"),
    ("${", "${"),
    ("combining", "e\u{301}\u{327}"),
    ("invisible", "\u{200b}\u{202e}"),
];

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut missed = honest(&mut out)?;
    missed.extend(hostile(&mut out)?);
    configurations(&mut out)?;
    for miss in &missed {
        writeln!(out, "MISSED {miss}")?;
    }
    if missed.is_empty() {
        writeln!(
            out,
            "honest text: {RATIO_MAX}x a plain pass at most, within {:.0} % of 1 KiB; hostile text: within {:.0} % of 64 KiB",
            DRIFT_MAX * 100.0,
            HOSTILE_DRIFT_MAX * 100.0
        )?;
    }
    Ok(())
}

/// The check of honest text beside the plain pass.
fn honest(out: &mut StdoutLock<'_>) -> io::Result<Vec<String>> {
    let plain = Regex::new(ABSENT).expect("the class is a constant");
    let mut missed = Vec::new();
    for (name, unit) in HONEST {
        writeln!(
            out,
            "honest text, {name}\n{:>10} {:>16} {:>11} {:>7} {:>13}",
            "bytes", "text::check ns/B", "regex ns/B", "ratio", "beside 1 KiB"
        )?;
        let texts = SIZES.map(|size| repeated(unit, size));
        for text in &texts {
            assert_eq!(text::check(text).count(), 0, "{name} is honest");
            assert!(!plain.is_match(text), "the class is in {name}");
        }
        let check = |text: &String| text::check(text).count() == 0;
        let regex = |text: &String| plain.is_match(text);
        let passes = texts
            .each_ref()
            .map(|text| [(text, &check as Pass<'_>), (text, &regex)]);
        let times = per_byte(passes);
        let shortest = times[0][0];
        for ([check, regex], text) in times.into_iter().zip(&texts) {
            let size = text.len();
            let ratio = check / regex;
            let drift = (check / shortest - 1.0) * 100.0;
            writeln!(
                out,
                "{size:>10} {check:>16.3} {regex:>11.3} {ratio:>6.2}x {drift:>+12.1}%"
            )?;
            if ratio > RATIO_MAX {
                missed.push(format!("{name}, {size} bytes: {ratio:.2}x a plain pass"));
            }
            if drift.abs() > DRIFT_MAX * 100.0 {
                missed.push(format!("{name}, {size} bytes: {drift:+.1} % of 1 KiB"));
            }
        }
        writeln!(out)?;
    }
    Ok(missed)
}

/// Time per byte of hostile texts: of the check, and of what a refusal shows of them.
fn hostile(out: &mut StdoutLock<'_>) -> io::Result<Vec<String>> {
    let mut missed = Vec::new();
    writeln!(
        out,
        "hostile text, ns/B of 64 KiB, then of 1 MiB\n{:>20} {:>16} {:>16} {:>16}",
        "over and over", "text::check", "text::excerpt", "text::mask"
    )?;
    let check = |text: &String| text::check(text).count() == 0;
    let excerpt = |text: &String| text::excerpt(text).is_empty();
    let mask = |text: &String| text::mask(text).is_empty();
    for (name, unit) in HOSTILE {
        let texts = [64 * KIB, MIB].map(|size| repeated(unit, size));
        let passes = texts
            .each_ref()
            .map(|text| [(text, &check as Pass<'_>), (text, &excerpt), (text, &mask)]);
        let [short, long] = per_byte(passes);
        write!(out, "{name:>20}")?;
        for ((short, long), what) in short
            .into_iter()
            .zip(long)
            .zip(["check", "excerpt", "mask"])
        {
            write!(out, " {:>16}", format!("{short:.3} {long:.3}"))?;
            // What hardly looks at the text is as fast as memory is, and that depends on the size.
            if long > 0.1 && long / short - 1.0 > HOSTILE_DRIFT_MAX {
                missed.push(format!(
                    "text::{what} of {name}: {long:.3} ns/B at 1 MiB, {short:.3} at 64 KiB"
                ));
            }
        }
        writeln!(out)?;
    }
    writeln!(out)?;
    Ok(missed)
}

/// Whole configurations of many entries. They have no target: most of it is parsing of URLs.
fn configurations(out: &mut StdoutLock<'_>) -> io::Result<()> {
    writeln!(
        out,
        "Config::check, ns/B of the configuration as JSON\n{:>10} {:>10} {:>10}",
        "entries", "mirrors", "files"
    )?;
    for entries in [16, 64, 1024, 8192] {
        let mirror = |n| format!("https://mirror-{n}.example.com:5000/v2/docker-hub/");
        let mirrors = Config {
            docker: Some(Docker {
                registry_mirrors: Some((0..entries).map(mirror).collect()),
                ..Docker::default()
            }),
            ..Config::default()
        };
        let file = |n| File {
            path: format!("/etc/edict/deep/er/and/file-{n}.conf"),
            content: Some(String::new()),
            content_from: None,
            mode: Some("0644".to_owned()),
            owner: None,
            notify: None,
        };
        let files = Config {
            files: Some(Files((0..entries).map(file).collect())),
            ..Config::default()
        };
        let texts = [&mirrors, &files]
            .map(|config| serde_json::to_string(config).expect("a configuration is JSON"));
        let passes = |config: &Config| {
            config
                .check(&Policy::default(), &Contents::default())
                .is_empty()
        };
        assert!(passes(&mirrors) && passes(&files), "they are honest");
        let [[mirrors, files]] = per_byte([[
            (&texts[0], &|_| passes(black_box(&mirrors))),
            (&texts[1], &|_| passes(black_box(&files))),
        ]]);
        writeln!(out, "{entries:>10} {mirrors:>10.2} {files:>10.2}")?;
    }
    writeln!(out)
}

/// `unit` over and over, with letters behind it up to `size` bytes.
fn repeated(unit: &str, size: usize) -> String {
    let text = unit.repeat(size / unit.len());
    format!("{text}{}", "a".repeat(size - text.len()))
}

type Pass<'a> = &'a dyn Fn(&String) -> bool;

/// Nanoseconds for each byte of its text: the best of many turns of each pass.
fn per_byte<const N: usize, const M: usize>(
    passes: [[(&String, Pass<'_>); M]; N],
) -> [[f64; M]; N] {
    let timed = |(text, pass): (&String, Pass<'_>), times: u32| {
        let started = Instant::now();
        for _ in 0..times {
            black_box(pass(black_box(text)));
        }
        started.elapsed().as_secs_f64() / f64::from(times)
    };
    let times = passes.map(|row| {
        row.map(|pass| {
            // What is built at first use is built now.
            timed(pass, 1);
            let once = timed(pass, 1).max(1e-9);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "4 ms hold some millions of passes at most"
            )]
            let times = (TURN.as_secs_f64() / once) as u32;
            times.max(1)
        })
    });
    let mut best = [[f64::INFINITY; M]; N];
    for _ in 0..TURNS {
        for row in 0..N {
            for column in 0..M {
                let seconds = timed(passes[row][column], times[row][column]);
                best[row][column] = best[row][column].min(seconds);
            }
        }
    }
    for (best, row) in best.iter_mut().zip(passes) {
        for (best, (text, _)) in best.iter_mut().zip(row) {
            #[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
            let bytes = text.len() as f64;
            *best *= 1e9 / bytes;
        }
    }
    best
}
