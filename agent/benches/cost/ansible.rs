//! Twenty files, applied by `edict-agent apply` and by Ansible's copy module on localhost.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const AGENT: &str = env!("CARGO_BIN_EXE_edict-agent");
/// The release of ansible-core that is installed where there is none.
const ANSIBLE: &str = "ansible-core==2.17.0";
const FILES: usize = 20;
const TURNS: usize = 5;

/// A NodeConfig of so many files of 1 KiB.
pub fn manifest(folder: &Path) -> io::Result<PathBuf> {
    let mut text = String::from(
        "apiVersion: edict.dev/v1alpha1\nkind: NodeConfig\nmetadata: {name: files}\nspec:\n  \
         target: {role: All}\n  files:\n",
    );
    for n in 0..FILES {
        let line = writeln!(
            text,
            "  - {{path: /etc/edict/{n}, content: {}, mode: \"0644\"}}",
            "a".repeat(1024)
        );
        line.map_err(io::Error::other)?;
    }
    let path = folder.join("files.yaml");
    fs::write(&path, text)?;
    Ok(path)
}

/// Applies a manifest to a root.
pub fn apply(root: &Path, manifest: &Path) -> io::Result<()> {
    fs::create_dir_all(root.join("etc"))?;
    let mut command = Command::new(AGENT);
    command.args(["apply", "--root"]).arg(root).arg(manifest);
    done(&mut command)
}

fn playbook(folder: &Path, etc: &Path) -> io::Result<PathBuf> {
    let etc = etc.display();
    let text = format!(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n  - file: {{path: {etc}/edict, state: \
         directory}}\n  - copy: {{dest: \"{etc}/edict/{{{{ item }}}}\", content: \"{}\", mode: \"0644\"}}\n    \
         loop: \"{{{{ range({FILES}) | list }}}}\"\n",
        "a".repeat(1024)
    );
    let path = folder.join("files.playbook.yaml");
    fs::write(&path, text)?;
    Ok(path)
}

/// How long both take, the median of some turns, each on a new root.
pub fn measure(folder: &Path) -> io::Result<[Duration; 2]> {
    let ansible = ansible()?;
    let folder = folder.join("ansible");
    fs::create_dir_all(&folder)?;
    let manifest = manifest(&folder)?;
    let mut both = [Vec::new(), Vec::new()];
    for turn in 0..TURNS {
        let root = folder.join(turn.to_string());
        let etc = root.join("theirs");
        fs::create_dir_all(&etc)?;
        let began = Instant::now();
        apply(&root, &manifest)?;
        both[0].push(began.elapsed());
        let playbook = playbook(&folder, &etc)?;
        let began = Instant::now();
        let mut command = Command::new(&ansible);
        command
            .args(["--connection", "local", "--inventory", "localhost,"])
            .args(["--extra-vars", "ansible_python_interpreter=python3"])
            .arg(playbook);
        done(&mut command)?;
        both[1].push(began.elapsed());
        for n in 0..FILES {
            let [ours, theirs] = [root.join("etc"), etc.clone()]
                .map(|etc| fs::read(etc.join("edict").join(n.to_string())));
            if ours? != theirs? {
                return Err(io::Error::other("both have to do the same"));
            }
        }
    }
    Ok(both.map(|mut turns| {
        turns.sort();
        turns[turns.len() / 2]
    }))
}

/// Ansible, of this machine or installed into the cache.
fn ansible() -> io::Result<PathBuf> {
    let there = PathBuf::from("ansible-playbook");
    if done(Command::new(&there).arg("--version")).is_ok() {
        return Ok(there);
    }
    let cache = std::env::var_os("EDICT_CACHE").map(PathBuf::from);
    let home = || std::env::home_dir().map(|home| home.join(".cache/edict"));
    let cache = cache
        .or_else(home)
        .ok_or_else(|| io::Error::other("no cache folder: set EDICT_CACHE"))?;
    let folder = cache.join("ansible");
    let there = folder.join("bin/ansible-playbook");
    if !there.exists() {
        done(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        let mut pip = Command::new(folder.join("bin/pip"));
        done(pip.args(["install", "--quiet", ANSIBLE]))?;
    }
    Ok(there)
}

fn done(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    Err(io::Error::other(format!("{command:?}: {said}")))
}
