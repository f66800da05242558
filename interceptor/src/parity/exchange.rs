//! Requests to a process that was started for them, and its answers: a line of JSON each, over its standard input and
//! output.

use std::{
    fmt::Debug,
    io::{self, BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout},
};

use anyhow::{Context as _, anyhow, bail};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// The asking end. The process ends when its standard input is closed, so at the latest with this.
#[derive(Debug)]
pub struct Exchange {
    requests: ChildStdin,
    replies: BufReader<ChildStdout>,
}

impl Exchange {
    /// Takes charge of a process whose standard input and output are pipes.
    pub fn with(child: &mut Child) -> anyhow::Result<Self> {
        let requests = child.stdin.take().context("the process's standard input is no pipe")?;
        let replies = child.stdout.take().context("the process's standard output is no pipe")?;
        Ok(Self { requests, replies: BufReader::new(replies) })
    }

    /// Asks for one thing and waits for the answer, whose type the request's documentation names.
    pub fn ask<T: DeserializeOwned>(&mut self, request: &(impl Serialize + Debug)) -> anyhow::Result<T> {
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        self.requests.write_all(line.as_bytes()).context("the process takes no requests any more")?;
        line.clear();
        self.replies.read_line(&mut line).context("an answer is lost")?;
        if line.is_empty() {
            bail!("the process ended before its time, asked for {request:?}");
        }
        let reply: Result<T, String> =
            serde_json::from_str(&line).with_context(|| format!("the process answered {line:?}"))?;
        reply.map_err(|reason| anyhow!("{reason}"))
    }
}

/// The answering end: answers requests until standard input ends.
pub fn answer<R: DeserializeOwned>(mut handle: impl FnMut(R) -> anyhow::Result<Value>) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    for line in io::stdin().lines() {
        let request = serde_json::from_str(&line?).context("cannot read the request")?;
        let reply = handle(request).map_err(|error| format!("{error:#}"));
        serde_json::to_writer(&mut output, &reply)?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
    Ok(())
}
