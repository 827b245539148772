//! The agent killed by the kernel before each of its operations, on a host, where `/etc` is the overlay of
//! an image.

use anyhow::{Result, ensure};
use e2e::settings::Settings;
use e2e::{Host, image};

/// Where the tests of the agent are on the host.
const TESTS: &str = "/root/agent-tests";
/// The test of the agent that kills; see `agent/tests/agent/power/kill.rs`.
const KILLED: &str = "power::kill::killed_at_any_operation";

#[tokio::test]
async fn at_any_operation() -> Result<()> {
    let settings = Settings::read()?;
    let program = image::test_program(&settings, "edict-agent", "agent").await?;
    let host = Host::boot(&settings, &[(&program, TESTS)]).await?;
    let node = host.node();
    node.run(&["mkdir", "/etc/edict"]).await?;
    let argv = ["env", "TMPDIR=/etc/edict", TESTS, "--exact", KILLED];
    let ended = node.exec(&argv).await?;
    let (said, more) = (ended.text(), &ended.stderr);
    ensure!(
        ended.success() && said.contains("test result: ok. 1 passed"),
        "{said}{more}"
    );
    Ok(())
}
