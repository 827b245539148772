//! The operator itself: the program that is shipped, as a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::process::{Child, Command};

pub struct Operator {
    process: Child,
    /// What it says.
    log: PathBuf,
}

impl Operator {
    /// Starts the operator `identity` of the API server at `server`; what it says goes to `folder`.
    pub fn start(server: SocketAddr, identity: &str, folder: &Path) -> Self {
        let kubeconfig = folder.join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "api",
            "clusters": [{"name": "api", "cluster": {"server": format!("http://{server}")}}],
            "contexts": [{"name": "api", "context": {"cluster": "api", "user": "operator"}}],
            "users": [{"name": "operator", "user": {}}],
        });
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        let log = folder.join(format!("{identity}.log"));
        let output = std::fs::File::create(&log).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_edict-operator"))
            .env_clear()
            .env("KUBECONFIG", kubeconfig)
            .env("EDICT_IDENTITY", identity)
            .env("EDICT_AGENT_IMAGE", "edict/agent:test")
            .env("EDICT_LISTEN", "127.0.0.1:0")
            .env("EDICT_LOG", "info,edict_operator=debug")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { process, log }
    }

    /// Tells it to end, as a kubelet does.
    pub fn terminate(&self) {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok());
        let id = id.and_then(Pid::from_raw).expect("it has not ended yet");
        kill_process(id, Signal::TERM).unwrap();
    }

    /// Ends it as a power failure does.
    pub async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }

    /// How it ends by itself.
    pub async fn end(&mut self, within: Duration) -> ExitStatus {
        let ended = tokio::time::timeout(within, self.process.wait()).await;
        let Ok(status) = ended else {
            panic!("it still runs after {within:?}\n{}", self.said());
        };
        status.unwrap()
    }

    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    /// The last of what it said.
    pub fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}
