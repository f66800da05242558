//! Programs of others as applications: what they see of a page that they fetch.

use std::{
    env, fmt, fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::{report::Skip, scenario::Client, world::World};

/// What curl writes after the page.
const CURL_FORMAT: &str = "\n%{exitcode} %{local_ip} %{local_port} %{remote_ip} %{remote_port}";

/// A program that fetches pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// curl.
    Curl,
    /// Python, by its module `socket`.
    Python,
    /// Java, whose sockets are IPv6 ones that speak IPv4 as well.
    Java,
    /// Node, by its module `http`.
    Node,
}

/// What a program saw.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fetched {
    /// The page, and the addresses that the program takes for the connection's.
    Page {
        /// The program's end.
        local: SocketAddr,
        /// The far end.
        peer: SocketAddr,
        /// The page's text.
        answer: String,
    },
    /// Why there is none, in the program's words.
    Error(String),
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Program {
    /// Every one there is.
    pub const ALL: [Self; 4] = [Self::Curl, Self::Python, Self::Java, Self::Node];

    fn name(self) -> &'static str {
        match self {
            Self::Curl => "curl",
            Self::Python => "python3",
            Self::Java => "java",
            Self::Node => "node",
        }
    }

    /// Has the program fetch a page. Where it is missing, that is skipped.
    pub(super) fn fetch(
        self,
        world: &World,
        interceptor: &Path,
        client: Client,
        to: SocketAddr,
    ) -> anyhow::Result<Fetched> {
        let program = find(self.name())
            .ok_or_else(|| Skip(format!("{self} is not installed where every user can run it")))?;
        let mut command = world.command(interceptor, client.place, client.owner, &program)?;
        command.args(self.arguments(to)).env_clear();
        let output = world.run(None, &mut command, self.script())?;
        let said = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        if self == Self::Java && complaint.contains("jdk.compiler") {
            return Err(Skip("java is here without its compiler".to_owned()).into());
        }
        let read = if self == Self::Curl {
            read_curl(&said)
        } else {
            serde_json::from_str(&said).map_err(anyhow::Error::from)
        };
        read.with_context(|| format!("{self} ({}) said {said:?} and {complaint:?}", status(&output)))
    }

    /// All but curl take what to do on standard input.
    fn arguments(self, to: SocketAddr) -> Vec<String> {
        let (host, port) = (to.ip().to_string(), to.port().to_string());
        let arguments: &[&str] = match self {
            Self::Curl => &["-sg", "-m", "5", "-w", CURL_FORMAT, &format!("http://{to}/")],
            Self::Python | Self::Node => &["-", &host, &port],
            Self::Java => &["-XX:TieredStopAtLevel=1", "--source", "11", "/dev/stdin", &host, &port],
        };
        arguments.iter().map(ToString::to_string).collect()
    }

    fn script(self) -> &'static str {
        match self {
            Self::Curl => "",
            Self::Python => include_str!("client.py"),
            Self::Java => include_str!("Client.java"),
            Self::Node => include_str!("client.js"),
        }
    }
}

fn status(output: &Output) -> String {
    output.status.to_string()
}

fn read_curl(said: &str) -> anyhow::Result<Fetched> {
    let (answer, numbers) = said.rsplit_once('\n').context("there is no line of numbers")?;
    let numbers: Vec<_> = numbers.split(' ').collect();
    ensure!(numbers.len() == 5, "there are {} numbers instead of 5", numbers.len());
    if numbers[0] != "0" {
        return Ok(Fetched::Error(format!("exit code {}", numbers[0])));
    }
    let address = |host: &str, port: &str| -> anyhow::Result<_> {
        Ok(SocketAddr::new(host.parse::<IpAddr>()?, port.parse()?))
    };
    Ok(Fetched::Page {
        local: address(numbers[1], numbers[2])?,
        peer: address(numbers[3], numbers[4])?,
        answer: answer.to_owned(),
    })
}

/// The program's file in `PATH`, if users without rights can reach and run it: a root's own tools are of no use here.
fn find(name: &str) -> Option<PathBuf> {
    let for_all =
        |path: &Path| fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0);
    let usable = |path: &PathBuf| {
        fs::canonicalize(path).is_ok_and(|path| path.ancestors().all(for_all))
            && path.ancestors().all(for_all)
    };
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(usable)
}
