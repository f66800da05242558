//! Pods that are alike to the last address: enough of a network for what never leaves them.

use std::process::Command;

use anyhow::ensure;
use interceptor::parity::world::{Namespace, World};

/// What a pod's network looks like, but that its eth0 leads nowhere.
const NETWORK: &str = "link set lo up
link add eth0 type veth peer name gate
link set gate up
addr add 10.77.1.2/24 dev eth0
link set eth0 up
route add default via 10.77.1.1
";

/// Makes one.
pub fn pod(world: &World) -> anyhow::Result<Namespace> {
    let namespace = Namespace::create()?;
    namespace.enter(|| {
        let output = world.run(None, Command::new("ip").args(["-batch", "-"]), NETWORK)?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    })?;
    Ok(namespace)
}
