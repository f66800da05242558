//! Having the running agent do what a command would otherwise do itself.

use std::path::{Path, PathBuf};

use interceptor::{
    agent::{Client, Kept, WorkloadId},
    netns::Netns,
};

/// The workload the agent keeps for a namespace.
pub(super) fn find(agent: &Client, netns: &Netns) -> anyhow::Result<Option<Kept>> {
    let cookie = netns.cookie()?;
    Ok(agent.workloads()?.into_iter().find(|kept| kept.cookie == Some(cookie)))
}

/// What a workload is called that nobody gave a name.
pub(super) fn id(netns: &Netns) -> anyhow::Result<WorkloadId> {
    Ok(format!("netns-{}", netns.cookie()?).parse()?)
}

/// A path by which another process finds the namespace: one relative to this process would lead it to its own.
pub(super) fn lasting_path(netns: &Netns) -> PathBuf {
    let own = std::process::id();
    let path = netns.path();
    for (relative, absolute) in
        [("/proc/self", format!("/proc/{own}")), ("/proc/thread-self", format!("/proc/{own}"))]
    {
        if let Ok(rest) = path.strip_prefix(relative) {
            return Path::new(&absolute).join(rest);
        }
    }
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
