//! The address and the routes that belong to the rules, by `ip` of iproute2.

use std::{collections::BTreeSet, thread, time::Duration};

use super::command::{LoadError, run};
use crate::capture::{Capture, InboundMode, InboundPorts};

/// The proxy's source address for inbound connections it hands on; 127.0.0.6 needs none, as all of 127/8 is on lo.
const PASSTHROUGH: &str = "::6/128";

/// How often to look for its route; a busy machine needs tens of milliseconds.
const TRIES: u32 = 500;
const PAUSE: Duration = Duration::from_millis(10);

/// Adds what `capture` needs and is not there yet.
pub(crate) fn add(capture: &Capture) -> Result<(), LoadError> {
    if capture.ipv6 && !has_passthrough()? {
        // Without `nodad` the kernel would first look for others that have it, and let nobody bind to it so long.
        run("ip", &["-6", "address", "add", PASSTHROUGH, "dev", "lo", "nodad"], "")?;
        wait_for_route()?;
    }
    if capture.inbound_mode == InboundMode::Redirect || capture.inbound_ports == InboundPorts::None {
        return Ok(());
    }
    let (mark, table) = (capture.tproxy_mark.to_string(), capture.tproxy_table.to_string());
    for family in families(capture.ipv6) {
        if !rules(family, capture.tproxy_mark)?.contains(&table) {
            run("ip", &[family, "rule", "add", "fwmark", &mark, "lookup", &table], "")?;
        }
        run("ip", &[family, "route", "replace", "local", "default", "dev", "lo", "table", &table], "")?;
    }
    Ok(())
}

/// The kernel adds the address's route some time after the address, and without it answers find no way back.
fn wait_for_route() -> Result<(), LoadError> {
    let show = ["-6", "route", "show", "table", "local", PASSTHROUGH];
    for _ in 0..TRIES {
        if !run("ip", &show, "")?.is_empty() {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
    Err(LoadError::Failed {
        command: format!("ip {}", show.join(" ")),
        message: "the kernel adds no route for the address".to_owned(),
    })
}

/// Removes the address and, for every mark that TPROXY had, the routing rule and its table's route.
pub(super) fn remove(marks: &BTreeSet<u32>) -> Result<bool, LoadError> {
    let has_address = match has_passthrough() {
        // Without the tool nothing was ever added by it.
        Err(LoadError::Start { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(false);
        }
        has_address => has_address?,
    };
    if has_address {
        run("ip", &["-6", "address", "del", PASSTHROUGH, "dev", "lo"], "")?;
    }
    Ok(remove_rules(marks)? || has_address)
}

/// Removes the routing rules for these marks, and their tables' routes.
pub(super) fn remove_rules(marks: &BTreeSet<u32>) -> Result<bool, LoadError> {
    let mut found = false;
    for mark in marks {
        for family in families(true) {
            for table in rules(family, *mark)? {
                found = true;
                run("ip", &[family, "rule", "del", "fwmark", &mark.to_string(), "lookup", &table], "")?;
                run("ip", &[family, "route", "del", "local", "default", "dev", "lo", "table", &table], "")?;
            }
        }
    }
    Ok(found)
}

fn families(ipv6: bool) -> impl Iterator<Item = &'static str> {
    ["-4", "-6"].into_iter().take(if ipv6 { 2 } else { 1 })
}

fn has_passthrough() -> Result<bool, LoadError> {
    Ok(run("ip", &["-6", "-o", "address", "show", "dev", "lo"], "")?.contains(" ::6/128 "))
}

/// The tables that rules for `mark` look into: `32765: from all fwmark 0x539 lookup 133`.
fn rules(family: &str, mark: u32) -> Result<Vec<String>, LoadError> {
    let printed = run("ip", &["-N", family, "rule", "show", "fwmark", &mark.to_string()], "")?;
    let tables = printed.lines().filter_map(|line| line.split_once(" lookup "));
    Ok(tables.filter_map(|(_, table)| Some(table.split_whitespace().next()?.to_owned())).collect())
}
