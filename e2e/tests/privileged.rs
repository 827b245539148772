//! Tests of the agent that want a host of their own, and root on it: `/etc` is the overlay of an image
//! there.

use anyhow::{Result, ensure};
use e2e::settings::Settings;
use e2e::{Host, image};

/// Where the tests of the agent are on the host.
const TESTS: &str = "/root/agent-tests";
/// The kernel kills the agent before each of its operations: `agent/tests/agent/power/kill.rs`.
const KILLED: &str = "power::kill::killed_at_any_operation";
/// A file has the flag of `chattr +i`: `agent/tests/agent/refusals.rs`.
const IMMUTABLE: &str = "refusals::a_file_that_is_immutable";

#[tokio::test]
async fn tests_of_the_agent() -> Result<()> {
    let settings = Settings::read()?;
    let program = image::test_program(&settings, "edict-agent", "agent").await?;
    let host = Host::boot(&settings, &[(&program, TESTS)]).await?;
    let node = host.node();
    node.run(&["mkdir", "/etc/edict"]).await?;
    for test in [KILLED, IMMUTABLE] {
        let environment = ["env", "TMPDIR=/etc/edict", "EDICT_TEST_ROOT=1"];
        let argv = [&environment[..], &[TESTS, "--exact", test]].concat();
        let ended = node.exec(&argv).await?;
        let (said, more) = (ended.text(), &ended.stderr);
        ensure!(
            ended.success() && said.contains("test result: ok. 1 passed"),
            "{said}{more}"
        );
    }
    Ok(())
}
