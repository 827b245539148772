//! The program without a cluster: `plan`, `apply`, `restore` and `status` on the root of a host.
#![expect(
    clippy::unwrap_used,
    reason = "a test states its expectations by failing; .clippy.toml covers test functions only"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::{Command, Output};

#[path = "agent/tree.rs"]
mod tree;

use tree::tree;

const BANNER: &str = "
apiVersion: edict.dev/v1alpha1
kind: NodeConfig
metadata: {name: banner}
spec:
  target: {role: All}
  files:
  - {path: /etc/motd, content: \"new\\n\"}
  - {path: /etc/edict/deep/er, content: deep}
---
apiVersion: edict.dev/v1alpha1
kind: NodeConfig
metadata: {name: mirrors}
spec:
  target: {role: Master}
  docker: {registryMirrors: [https://mirror.example.com]}
";

/// A host with its root in a folder.
struct Host {
    root: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc");
        fs::create_dir_all(etc.join("docker")).unwrap();
        fs::write(etc.join("motd"), "old\n").unwrap();
        fs::write(etc.join("docker/daemon.json"), "{\n  \"debug\": true\n}\n").unwrap();
        for path in ["motd", "docker/daemon.json"] {
            fs::set_permissions(etc.join(path), fs::Permissions::from_mode(0o644)).unwrap();
        }
        Self { root }
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    /// Runs a command with a manifest, and gives its exit code and what it printed.
    fn run(&self, command: &str, manifest: Option<&str>, more: &[&str]) -> (i32, String) {
        let files = tempfile::tempdir().unwrap();
        let mut agent = Command::new(env!("CARGO_BIN_EXE_edict-agent"));
        agent
            .arg(command)
            .arg("--root")
            .arg(self.root.path())
            .args(more);
        if let Some(manifest) = manifest {
            let file = files.path().join("manifest.yaml");
            fs::write(&file, manifest).unwrap();
            agent.arg(file);
        }
        let Output {
            status,
            stdout,
            stderr,
        } = agent.output().unwrap();
        let said = [stdout, stderr].concat();
        (status.code().unwrap(), String::from_utf8(said).unwrap())
    }

    /// The same, and asks for this exit code.
    fn ends(&self, expected: i32, command: &str, manifest: Option<&str>, more: &[&str]) -> String {
        let (code, said) = self.run(command, manifest, more);
        assert_eq!(code, expected, "{command}: {said}");
        said
    }

    /// Everything under the root.
    fn tree(&self) -> Vec<String> {
        tree(self.root.path())
    }
}

#[test]
fn a_plan_says_what_would_change_and_writes_nothing() {
    let host = Host::new();
    let before = host.tree();
    let said = host.ends(3, "plan", Some(BANNER), &[]);
    assert_eq!(
        said,
        "\
--- /etc/docker/daemon.json
+++ /etc/docker/daemon.json
@@ -1,3 +1,4 @@
 {
-  \"debug\": true
+  \"debug\": true,
+  \"registry-mirrors\": [\"https://mirror.example.com\"]
 }
--- /dev/null
+++ /etc/edict/deep/er
@@ -0,0 +1 @@
+deep
\\ No newline at end of file
--- /etc/motd
+++ /etc/motd
@@ -1 +1 @@
-old
+new
banner: would be Applied
mirrors: would be Applied
3 files would change; nothing was written
"
    );
    assert_eq!(host.tree(), before);
}

#[test]
fn what_is_applied_is_planned_no_more_and_given_back_whole() {
    let host = Host::new();
    let before = host.tree();
    let said = host.ends(0, "apply", Some(BANNER), &[]);
    assert!(said.contains("banner: Applied\n"), "{said}");
    assert_eq!(fs::read_to_string(host.path("/etc/motd")).unwrap(), "new\n");
    assert_eq!(
        fs::read_to_string(host.path("/etc/edict/deep/er")).unwrap(),
        "deep"
    );

    let applied = host.tree();
    let said = host.ends(0, "plan", Some(BANNER), &[]);
    assert!(
        said.ends_with("0 files would change; nothing was written\n"),
        "{said}"
    );
    assert_eq!(host.tree(), applied);
    let said = host.ends(0, "status", None, &[]);
    assert!(said.contains("  /etc/motd of banner\n"), "{said}");

    let other = BANNER.split_once("---").unwrap().0;
    let (code, said) = host.run("restore", Some(other), &[]);
    assert_eq!(
        (code, &*said),
        (
            0,
            "banner: given back\n  /etc/docker/daemon.json registry-mirrors of mirrors\n"
        )
    );
    assert_eq!(fs::read_to_string(host.path("/etc/motd")).unwrap(), "old\n");
    host.ends(0, "restore", None, &[]);
    let kept = host.path("/var").display().to_string();
    let after: Vec<_> = host
        .tree()
        .into_iter()
        .filter(|line| !line.starts_with(&kept))
        .collect();
    assert_eq!(after, before);
    let (code, said) = host.run("status", None, &[]);
    assert!(
        code == 0 && said.ends_with("\nnothing is in force\n"),
        "{said}"
    );
}

/// Two of one push: the second one finds what the first would leave.
#[test]
fn each_is_planned_behind_those_before_it() {
    let host = Host::new();
    host.run("apply", Some(BANNER), &[]);
    let moved = "
apiVersion: edict.dev/v1alpha1
kind: NodeConfig
metadata: {name: banner}
spec: {files: [{path: /etc/motd, content: \"new\\n\"}]}
---
apiVersion: edict.dev/v1alpha1
kind: NodeConfig
metadata: {name: mirrors}
spec: {files: [{path: /etc/issue, content: \"new\\n\"}]}
---
apiVersion: edict.dev/v1alpha1
kind: NodeConfig
metadata: {name: other}
spec:
  docker: {insecureRegistries: [registry.example.com]}
  files: [{path: /etc/edict/deep, content: \"new\\n\"}]
";
    let said = host.ends(3, "plan", Some(moved), &[]);
    let docker = "\
 {
   \"debug\": true,
-  \"registry-mirrors\": [\"https://mirror.example.com\"]
+  \"insecure-registries\": [\"registry.example.com\"]
 }
";
    assert!(said.contains(docker), "{said}");
    assert!(
        said.contains("+++ /etc/edict/deep\n") && said.contains("--- /etc/edict/deep/er\n"),
        "{said}"
    );
    host.ends(0, "apply", Some(moved), &[]);
    let docker = fs::read_to_string(host.path("/etc/docker/daemon.json")).unwrap();
    assert_eq!(
        docker,
        "{\n  \"debug\": true,\n  \"insecure-registries\": [\"registry.example.com\"]\n}\n"
    );
}

#[test]
fn what_moves_is_planned_as_it_is_applied() {
    // A folder of Edict's own goes away and a file takes its place.
    let host = Host::new();
    host.run("apply", Some(BANNER), &[]);
    let moved = BANNER
        .split_once("---")
        .unwrap()
        .0
        .replace("/etc/edict/deep/er", "/etc/edict/deep");
    let said = host.ends(3, "plan", Some(&moved), &[]);
    assert!(
        said.contains("+++ /etc/edict/deep\n") && said.contains("+++ /dev/null\n"),
        "{said}"
    );
    host.ends(0, "apply", Some(&moved), &[]);
    assert_eq!(
        fs::read_to_string(host.path("/etc/edict/deep")).unwrap(),
        "deep"
    );
}

#[test]
fn what_is_refused_is_said_and_the_rest_done() {
    let host = Host::new();
    let hostile = BANNER.replace("https://mirror.example.com", "\"https://a$(id)\"");
    for command in ["plan", "apply"] {
        let said = host.ends(1, command, Some(&hostile), &[]);
        assert!(
            said.contains("Refused: docker.registryMirrors[0]"),
            "{said}"
        );
    }
    assert_eq!(fs::read_to_string(host.path("/etc/motd")).unwrap(), "new\n");
    let said = host.ends(1, "apply", Some("kind: Pod"), &[]);
    assert!(said.contains("manifest.yaml, object 1: "), "{said}");
    host.ends(2, "apply", None, &[]);
}

#[test]
fn a_secret_is_written_and_never_said() {
    let host = Host::new();
    let manifest = "
{apiVersion: v1, kind: Secret, metadata: {name: a}, stringData: {key: hunter2}}
---
apiVersion: edict.dev/v1alpha1
kind: NodeConfig
metadata: {name: secret}
spec: {files: [{path: /etc/edict/secret, mode: '0644', contentFrom: {secretKeyRef: {name: a, key: key}}}]}
";
    for (command, output) in [
        ("plan", "text"),
        ("plan", "json"),
        ("apply", "text"),
        ("apply", "json"),
    ] {
        let (_, said) = host.run(command, Some(manifest), &["--output", output]);
        assert!(
            said.contains("/etc/edict/secret") && !said.contains("hunter2"),
            "{said}"
        );
        assert!(
            !said.contains("digest") && !said.contains("inForce"),
            "{said}"
        );
    }
    assert_eq!(
        fs::read_to_string(host.path("/etc/edict/secret")).unwrap(),
        "hunter2"
    );
    // Also where it is a Secret's no more.
    let plain = manifest.replace(
        "contentFrom: {secretKeyRef: {name: a, key: key}}",
        "content: plain",
    );
    let said = host.ends(3, "plan", Some(&plain), &[]);
    assert!(
        said.contains("not shown, it comes from a Secret") && !said.contains("hunter2"),
        "{said}"
    );
}

#[test]
fn what_was_interrupted_is_said_and_taken_back() {
    let host = Host::new();
    host.run("apply", Some(BANNER), &[]);
    let state = host.path("/var/lib/edict/state.json");
    let text = fs::read_to_string(&state).unwrap();
    assert!(text.contains("\"open\":false"), "{text}");
    fs::write(&state, text.replace("\"open\":false", "\"open\":true")).unwrap();
    fs::write(host.path("/etc/motd"), "half done\n").unwrap();
    let (code, said) = host.run("status", None, &[]);
    assert_eq!(
        (code, &*said),
        (
            1,
            "banner: in force before\nmirrors: in force before\n\
             a change was interrupted: apply and restore take it back first\n"
        )
    );
    let said = host.ends(3, "plan", Some(BANNER), &[]);
    // Whose it is is not known: a Secret's, perhaps.
    assert!(
        said.contains("/etc/motd: not shown") && !said.contains("half done"),
        "{said}"
    );
    let motd = || fs::read_to_string(host.path("/etc/motd")).unwrap();
    assert_eq!(motd(), "half done\n");
    host.ends(0, "apply", Some(BANNER), &[]);
    assert_eq!(motd(), "new\n");
}

/// What is on the way of one may be gone, or be made, by another.
#[test]
fn a_plan_finds_ways_as_they_will_be() {
    let config = |name: &str, path: &str| {
        format!(
            "{{apiVersion: edict.dev/v1alpha1, kind: NodeConfig, metadata: {{name: {name}}}, \
             spec: {{files: [{{path: {path}, content: a}}]}}}}\n---\n"
        )
    };
    let host = Host::new();
    host.run("apply", Some(&config("one", "/etc/edict/a")), &[]);
    let both = config("one", "/etc/edict/b") + &config("two", "/etc/edict/a/x");
    for (command, expected) in [("plan", 3), ("apply", 0), ("plan", 0)] {
        host.ends(expected, command, Some(&both), &[]);
    }
}

#[test]
fn a_root_is_not_left() {
    let host = Host::new();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::create_dir(elsewhere.path().join("lib")).unwrap();
    for (path, to) in [
        ("var", elsewhere.path()),
        ("etc", &elsewhere.path().join("lib")),
    ] {
        let there = host.path(path);
        let aside = host.path("aside");
        let moved = there.exists();
        if moved {
            fs::rename(&there, &aside).unwrap();
        }
        std::os::unix::fs::symlink(to, &there).unwrap();
        for command in ["plan", "apply", "restore"] {
            let said = host.ends(1, command, Some(BANNER), &[]);
            assert!(
                said.contains("a symlink that leads out of the root"),
                "{said}"
            );
        }
        fs::remove_file(&there).unwrap();
        if moved {
            fs::rename(&aside, &there).unwrap();
        }
    }
    let lib = elsewhere.path().join("lib").display().to_string();
    let left = tree(elsewhere.path());
    assert!(
        left.len() == 1 && left[0].starts_with(&format!("{lib} ")),
        "{left:?}"
    );
}

#[test]
fn only_a_state_folder_becomes_one() {
    let host = Host::new();
    let mine = host.path("mine");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("a"), "a").unwrap();
    fs::set_permissions(&mine, fs::Permissions::from_mode(0o755)).unwrap();
    let before = host.tree();
    let state = ["--state", mine.to_str().unwrap()];
    for (command, manifest, expected) in [
        ("plan", Some(BANNER), 3),
        ("status", None, 0),
        ("apply", Some(BANNER), 1),
        ("restore", None, 1),
    ] {
        host.ends(expected, command, manifest, &state);
        assert_eq!(host.tree(), before, "{command}");
    }
    // What is made on the way there is everybody's to look into.
    host.run("apply", Some(BANNER), &[]);
    let mode = |path| fs::metadata(host.path(path)).unwrap().mode() & 0o7777;
    assert_eq!(
        [mode("/var"), mode("/var/lib"), mode("/var/lib/edict")],
        [0o755, 0o755, 0o700]
    );
}

#[test]
fn what_is_not_there_is_said() {
    let host = Host::new();
    let (code, said) = host.run("restore", Some(BANNER), &[]);
    assert_eq!(
        (code, &*said),
        (
            0,
            "banner: is not in force here\nmirrors: is not in force here\n"
        )
    );
    for command in ["plan", "apply", "restore"] {
        let said = host.ends(1, command, Some("# nothing\n"), &[]);
        assert!(
            said.contains("there is no NodeConfig in what was given"),
            "{said}"
        );
    }
}

#[test]
fn programs_read_json() {
    let host = Host::new();
    let json = |command, manifest| {
        let (code, said) = host.run(command, manifest, &["--output", "json"]);
        let value: serde_json::Value = serde_json::from_str(&said).unwrap();
        (code, value)
    };
    let (code, said) = json("plan", Some(BANNER));
    assert_eq!((code, &said["changes"][2]["change"]), (3, &"Change".into()));
    assert_eq!(said["changes"][1]["change"], "Create");
    assert_eq!(said["layers"][0]["outcome"], "Applied");
    let (code, said) = json("status", None);
    assert_eq!((code, said["layers"].as_array().unwrap().len()), (0, 0));
    let (code, said) = json("apply", Some(BANNER));
    assert_eq!(
        (code, &said["report"]["layers"][1]["outcome"]),
        (0, &"Applied".into())
    );
    let (code, said) = json("status", None);
    assert_eq!((code, &said["layers"][0]["name"]), (0, &"banner".into()));
    let (code, said) = json("restore", None);
    assert_eq!(
        (code, &said["report"]["releases"][0]["done"]),
        (0, &true.into())
    );
}
